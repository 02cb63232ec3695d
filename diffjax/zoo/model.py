"""What the trainer, the evaluator and the sampler know of a system."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.errors import InputError
from diffjax.memory import Memory
from diffjax.predictions import Predict
from diffjax.processes import Process

Batch = Any
Decode = Callable[[Array], Array]  # from what the chain runs on to what is looked at, images in [-1, 1]


class Grid(NamedTuple):
    """Images (n, H, W, C) in [-1, 1], laid out in rows of `columns`."""

    images: Array | np.ndarray
    columns: int


class Film(NamedTuple):
    """Frames (frames, n, H, W, C) in [-1, 1]: n images that move together."""

    frames: Array | np.ndarray


class Curves(NamedTuple):
    """Graphs of y (n,) against x (n,): lines maps a name to (x, y); a legend is drawn where there are several."""

    lines: Mapping[str, tuple[Array | np.ndarray, Array | np.ndarray]]
    x_label: str
    y_label: str


class Points(NamedTuple):
    """Points of the plane: xy (n, 2)."""

    title: str
    xy: Array | np.ndarray


class Arrows(NamedTuple):
    """A vector field on the plane: vectors (n, 2) at xy (n, 2)."""

    title: str
    xy: Array | np.ndarray
    vectors: Array | np.ndarray


class Paths(NamedTuple):
    """Curves in the plane, each from a dot at its start: xy (n, num, 2)."""

    title: str
    xy: Array | np.ndarray


class Contours(NamedTuple):
    """Level lines of a density (ny, nx) over x (nx,) and y (ny,), those that hold 10, 30, 50, 70 and 90 per cent."""

    title: str
    x: Array | np.ndarray
    y: Array | np.ndarray
    density: Array | np.ndarray


Mark = Points | Arrows | Paths | Contours


class Panels(NamedTuple):
    """Rows of pictures of the plane, all with the same axes, whose names `labels` are.

    A picture is one mark or a list of several, drawn over one another under the title of the first. `extent`, if not 0,
    is how far the axes reach to either side of the origin.
    """

    rows: Sequence[Sequence[Mark | list[Mark]]]
    labels: tuple[str, str] = ("", "")
    extent: float = 0.0


Figure = Grid | Film | Curves | Panels


def grid(images: Array) -> Grid:
    """Images (n, H, W, C) in [-1, 1] in the squarest grid."""
    return Grid(images, math.ceil(math.sqrt(len(images))))


class Model(NamedTuple):
    """A system as pure functions. Per-example results have shape (batch,) and are in nats.

    A batch is a dict with "image" and where needed "label" (batch,) and "t" (batch,), or the examples alone. "image" is
    an example of any shape: uint8 levels 0 .. levels - 1 as the data comes, or floats; of images, in [-1, 1].

    init(key) -> params
    loss(params, key, batch) -> (batch,), what training descends; at times batch["t"] if given, else at times it draws.
        `key` is one key, or one per example (`diffjax.randomness`): the trainer's way to be independent of devices
    bound(params, key, batch) -> (batch,), a lower bound on log p(x)
    sample(params, key, num) -> (num, *event), floats; images in [-1, 1], bits 0 or 1
    terms(params, key, batch) -> {name: (batch,)}, the costs of which -bound is the sum. "units", if there, is what
        rescaling to unit variance costs: the bound on the density of the rescaled data is that of the other terms
    figures(params, key, batch) -> {name: Figure}, the system's own pictures, made once at the end of a run
    memory: what the system carries from step to step beside its parameters, of which the trainer draws batch["t"]; None
        if there is nothing
    picture(samples) -> Figure, how samples are to be looked at
    log_weight(params, key, batch) -> (batch,), one draw of log w with E[w] = p(x), of which `importance_weighted` makes
        tighter bounds; None where a system has none
    log_weights(params, key, batch, num) -> (num, batch), draws of log w by a proposal that is first fitted to the
        examples, and so better than `log_weight`; None where there is none
    annealed(params, key, batch) -> (batch,), the same by annealed importance sampling, a check on `log_weight`
    kernels(params) -> the process and the network as its Predict: what the library's samplers, bounds and conditioning
        take; None where a system is no diffusion
    log_prob(params, key, batch) -> (batch,), log p(x) by the probability flow, where data are levels a lower bound on
        their log-probability, in expectation; None where a system has no such flow
    table(params, key, batch) -> {row: {column: number}}, the system's own numbers, for eval.json and the screen, of the
        first examples of the test split; None where the bound says it all
    null(batch) -> (batch,), log p(x) under the prior itself, in the units of `bound`: what learning nothing reaches
        (L_null of Sohl-Dickstein et al. 2015); None where that says nothing
    fit(params, examples) -> params, what is found from all training examples at once before the first step, as k-means'
        centres are; examples are a batch of them all, as numpy arrays. None where everything is learned by steps
    features(params, batch) -> (batch, dim), what a linear probe reads; None where there is no encoder
    reconstruct(params, key, batch) -> (batch, *event), the examples after encoder and decoder, scaled as `sample` does
    class_log_probs(params, batch) -> (batch, classes), log p(y | x); None where nothing is classified
    classes: the field of the configuration that says how many classes labels are of, and their number; None where
        labels are not used. A label is below that number, and -1 where the class of an example is not known

    An auto-encoder without a likelihood has no bound, terms or sample: they are None.
    """

    init: Callable[[Array], Any]
    loss: Callable[[Any, Array, Batch], Array]
    bound: Callable[[Any, Array, Batch], Array] | None
    sample: Callable[[Any, Array, int], Array] | None
    terms: Callable[[Any, Array, Batch], dict[str, Array]] | None
    figures: Callable[[Any, Array, Batch], dict[str, Figure]]
    memory: Memory | None = None
    picture: Callable[[Array], Figure] = grid
    log_weight: Callable[[Any, Array, Batch], Array] | None = None
    kernels: Callable[[Any], tuple[Process, Predict]] | None = None
    null: Callable[[Batch], Array] | None = None
    table: Callable[[Any, Array, Batch], dict[str, dict[str, float]]] | None = None
    annealed: Callable[[Any, Array, Batch], Array] | None = None
    log_weights: Callable[[Any, Array, Batch, int], Array] | None = None
    log_prob: Callable[[Any, Array, Batch], Array] | None = None
    fit: Callable[[Any, Batch], Any] | None = None
    features: Callable[[Any, Batch], Array] | None = None
    reconstruct: Callable[[Any, Array, Batch], Array] | None = None
    class_log_probs: Callable[[Any, Batch], Array] | None = None
    classes: tuple[str, int] | None = None


def labels(batch: Batch, classes: tuple[str, int], name: str = "label", least: int = -1) -> Array:
    """batch[name] (batch,) of `Model.classes`, checked where it can be seen: values not under `jit`.

    Raises:
        InputError: if there is none, it is no integer for each image, or one is below `least` or no class.
    """
    field, num = classes
    if not isinstance(batch, dict) or name not in batch:
        raise InputError(f"{field}={num}, so a batch must be a dict with 'image' and {name!r}")
    label = jnp.asarray(batch[name])
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape != batch["image"].shape[:1]:
        raise InputError(
            f"{name} must be an integer for each image, of shape {batch['image'].shape[:1]}, not {label.dtype} of"
            f" shape {label.shape}"
        )
    if not isinstance(label, jax.core.Tracer):
        values = np.asarray(label)  # numpy's comparisons are not traced
        if len(wrong := values[(values < least) | (values >= num)]):
            unknown = ", nor -1 for one that is not known" if least < 0 else ""
            raise InputError(f"{name} {wrong.max()} is none of {field}={num} classes, 0 .. {num - 1}{unknown}")
    return label
