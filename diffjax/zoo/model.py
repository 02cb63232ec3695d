"""What the trainer, the evaluator and the sampler know of a system."""

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
    """What a system asks of all training examples, before the first step.

    fit(params, examples) -> params, what is found from all of them at once, as k-means' centres are. The examples are
        one batch, as numpy arrays. None where everything is learned by steps
    classes: the field of the configuration that says how many classes labels are of, and their number. None where
        labels are not used. A label is below that number, and -1 where the class of an example is not known
    """

    fit: Callable[[Any, Batch], Any] | None = None
    classes: tuple[str, int] | None = None


class Model(NamedTuple):
    """A system as pure functions. Per-example results have shape (batch,) and are in nats.

    A batch is a dict with "image" and where needed "label" (batch,), or the examples alone. "image" is an example of
    any shape: uint8 levels 0 .. levels - 1 as the data comes, or floats; of images, in [-1, 1]. Of two sets, "source"
    has the examples of the other (`data.source`). What a memory draws for the examples is in the batch, too, such as
    the times "t" (batch,).

    init(key) -> params
    loss(params, key, batch) -> (batch,), what training descends. Without "t" in the batch, a loss at random times draws
        its own. `key` is one key, or one per example (`diffjax.randomness`): the trainer's way to be independent of
        devices
    bound(params, key, batch) -> (batch,), a lower bound on log p(x)
    sample(params, key, num) -> (num, *event), floats; images in [-1, 1], bits 0 or 1
    kernels(params) -> the process and the network as its Predict: what the library's samplers, bounds and conditioning
        take
    memory: what is carried from step to step beside the parameters
    examples: what is asked of all training examples before the first step
    measures: what the system is measured by. The first is its headline
    figures: how it is looked at

    None stands where a system lacks something: an auto-encoder without a likelihood has no bound and no samples.
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
    """`Model.bound` from the costs of which it is the negative sum."""

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return -jnp.stack(list(terms(params, key, batch).values())).sum(0)

    return bound


def image_of(batch: Batch) -> Array:
    """The examples of a batch, as they come."""
    return batch["image"] if isinstance(batch, dict) else batch


def scaled(image: ArrayLike, levels: int) -> Array:
    """Levels 0 .. levels - 1, as uint8, as [-1, 1]. Floats stay as they are, as does everything where levels is 0."""
    x = jnp.asarray(image)
    return x.astype(float) * (2.0 / (levels - 1)) - 1.0 if levels and x.dtype == jnp.uint8 else x


def dequantised(key: randomness.Keys, image: ArrayLike, levels: int) -> Array:
    """Levels as real numbers: 2 (level + u)/(levels - 1) - 1, u uniform on [-1/2, 1/2). Without levels x as it is.

    The density of these bounds the probability of the levels: log P(level) ≥ E log p(x) - `units_of`.
    """
    x = jnp.asarray(image)
    if not levels:
        return x
    half = (levels - 1) / 2
    level = x.astype(float) if x.dtype == jnp.uint8 else (x + 1.0) * half
    return (level + randomness.uniform(key, x.shape, level.dtype) - 0.5) / half - 1.0


def units_of(shape: tuple[int, ...], levels: int) -> float:
    """What log p(x) of `dequantised` levels is more than log P(level), in nats."""
    return math.prod(shape) * math.log((levels - 1) / 2) if levels else 0.0


def labels(batch: Batch, classes: tuple[str, int], name: str = "label", least: int = -1) -> Array:
    """batch[name] (batch,) of `Examples.classes`, checked where it can be seen: values not under `jit`.

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
