"""The interface of a system to the trainer, the evaluator and the sampler."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import randomness
from diffjax.errors import InputError
from diffjax.evaluation.measure import Measure
from diffjax.memory import Memory
from diffjax.predictions import Predict
from diffjax.processes import Process
from diffjax.zoo.figures import Figures

Batch = Any
Kind = TypeVar("Kind", bound=Measure)


class Examples(NamedTuple):
    """What a system needs from all training examples, before the first step.

    fit(params, examples) -> params, fitted to all examples at once, such as k-means' centres. The examples are one
        batch of numpy arrays. None if all parameters are learned by steps
    classes: the field of the configuration with the number of classes, and this number. None if labels are not used. A
        label is below this number, or -1 if the class of an example is unknown
    """

    fit: Callable[[Any, Batch], Any] | None = None
    classes: tuple[str, int] | None = None


class Model(NamedTuple):
    """A system as pure functions. Per-example results have shape (batch,) and are in nats.

    A batch is the examples alone, or a dict. The dict has these entries:

        "image"   the examples (batch, *event), of any event shape: uint8 levels 0 .. levels - 1 as in the data, or
                  floats; images as floats are in [-1, 1]
        "label"   (batch,), where needed
        "source"  the examples of the second data set, if there are two (`data.source`)
        ...       what the memory draws for the examples, such as the times "t" (batch,)

    init(key) -> params
    loss(params, key, batch) -> (batch,), the loss that training minimises. If it needs random times and the batch has
        no "t", it draws them. `key` is one key, or one per example (`diffjax.randomness`). The trainer uses the latter,
        so that results do not depend on the number of devices
    bound(params, key, batch) -> (batch,), a lower bound on log p(x)
    sample(params, key, num) -> (num, *event), floats; images are in [-1, 1], bits are 0 or 1
    kernels(params) -> (process, network as its Predict), for the library's samplers, bounds and conditioning
    memory: what is carried from step to step besides the parameters
    examples: what is needed from all training examples before the first step
    measures: the measures of the system. The first is its headline
    figures: the figures of the system

    None means that a system lacks something: an auto-encoder without a likelihood has no bound and no samples.
    """

    init: Callable[[Array], Any]
    loss: Callable[[Any, Array, Batch], Array]
    bound: Callable[[Any, Array, Batch], Array] | None = None
    sample: Callable[[Any, Array, int], Array] | None = None
    kernels: Callable[[Any], tuple[Process, Predict]] | None = None
    memory: Memory | None = None
    examples: Examples = Examples()
    measures: Sequence[Measure] = ()
    figures: Figures = Figures()

    def measure(self, kind: type[Kind]) -> Kind:
        """The model's measure of this kind, e.g. `model.measure(Bound).terms`.

        Raises:
            InputError: if it has none.
        """
        for measure in self.measures:
            if isinstance(measure, kind):
                return measure
        raise InputError(f"this model has no measure of kind {kind.__name__}; it lacks a {kind.needs}")


def bound_of(terms: Callable[[Any, Array, Batch], dict[str, Array]]) -> Callable[[Any, Array, Batch], Array]:
    """`Model.bound` as minus the sum of the costs that `terms` returns."""

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return -jnp.stack(list(terms(params, key, batch).values())).sum(0)

    return bound


def image_of(batch: Batch) -> Array:
    """The examples of a batch, unchanged."""
    return batch["image"] if isinstance(batch, dict) else batch


def scaled(image: ArrayLike, levels: int) -> Array:
    """Scales uint8 levels 0 .. levels - 1 to [-1, 1]. Floats stay as they are; if levels is 0, everything does."""
    x = jnp.asarray(image)
    return x.astype(float) * (2.0 / (levels - 1)) - 1.0 if levels and x.dtype == jnp.uint8 else x


def dequantised(key: randomness.Keys, image: ArrayLike, levels: int) -> Array:
    """Levels as real numbers: 2 (level + u)/(levels - 1) - 1, u uniform on [-1/2, 1/2). If levels is 0, x is unchanged.

    Their density bounds the probability of the levels: log P(level) ≥ E log p(x) - `units_of`.
    """
    x = jnp.asarray(image)
    if not levels:
        return x
    half = (levels - 1) / 2
    level = x.astype(float) if x.dtype == jnp.uint8 else (x + 1.0) * half
    return (level + randomness.uniform(key, x.shape, level.dtype) - 0.5) / half - 1.0


def units_of(shape: tuple[int, ...], levels: int) -> float:
    """log p(x) of `dequantised` levels minus log P(level), in nats: the change of units."""
    return math.prod(shape) * math.log((levels - 1) / 2) if levels else 0.0


def labels(batch: Batch, classes: tuple[str, int], name: str = "label", least: int = -1) -> Array:
    """batch[name] (batch,), checked against `classes` (see `Examples`). Under `jit` its values cannot be checked.

    Raises:
        InputError: if it is missing, is not one integer per image, or has a value below `least` or not below the number
            of classes.
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
