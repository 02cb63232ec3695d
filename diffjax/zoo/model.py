"""What the trainer, the evaluator and the sampler know of a system."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from diffjax.time_sampling import TimeSampler

Batch = Any


class Grid(NamedTuple):
    """Images (n, H, W, C) in [-1, 1], laid out in rows of `columns`."""

    images: Array | np.ndarray
    columns: int


class Film(NamedTuple):
    """Frames (frames, n, H, W, C) in [-1, 1]: n images that move together."""

    frames: Array | np.ndarray


class Curve(NamedTuple):
    """A graph of y (n,) against x (n,)."""

    x: Array | np.ndarray
    y: Array | np.ndarray
    x_label: str
    y_label: str


Figure = Grid | Film | Curve


class Model(NamedTuple):
    """A system as pure functions. Per-example results have shape (batch,) and are in nats.

    A batch is a dict with "image" and where needed "label" (batch,) and "t" (batch,), or the images alone. Images are
    uint8 levels 0 .. levels - 1 as the data comes, or floats in [-1, 1].

    init(key) -> params
    loss(params, key, batch) -> (batch,), what training descends; at times batch["t"] if given, else at times it draws.
        `key` is one key, or one per example (`diffjax.randomness`): the trainer's way to be independent of devices
    bound(params, key, batch) -> (batch,), a lower bound on log p(x)
    sample(params, key, num) -> (num, *event), floats in [-1, 1]
    terms(params, key, batch) -> {name: (batch,)}, the costs of which -bound is the sum
    figures(params, key, batch) -> {name: Figure}, the system's own pictures, made once at the end of a run
    time_sampler: how the trainer should draw batch["t"]; None if the loss has no times
    """

    init: Callable[[Array], Any]
    loss: Callable[[Any, Array, Batch], Array]
    bound: Callable[[Any, Array, Batch], Array]
    sample: Callable[[Any, Array, int], Array]
    terms: Callable[[Any, Array, Batch], dict[str, Array]]
    figures: Callable[[Any, Array, Batch], dict[str, Figure]]
    time_sampler: TimeSampler | None = None
