"""What a system carries from step to step beside its parameters, as three pure functions.

Persistent chains, a codebook, running statistics, the history of losses at each time: each is a memory, any pytree of
arrays. It is part of the training state: saved and restored with it, and the same whatever devices share a batch.

A step with memory m, key k and parameters θ:

    fields  = draw(m, k, num)                      for the whole batch, e.g. {"t": (num,)}
    losses  = loss(θ, keys, batch | fields | {"memory": m})
    θ'      = the optimiser's step
    m'      = update(m, k', θ', batch | fields, losses)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from diffjax.time_sampling import TimeSampler


class Memory(NamedTuple):
    """A kind of memory.

    init(params) -> memory
    draw(memory, key, num) -> {name: (num, ...)}, what the examples of a batch get of it. "weight" (num,), if there,
        weighs the loss of each example
    update(memory, key, params, batch, losses) -> memory, after a step: the whole batch, with what was drawn for it, the
        new parameters, and the losses (num,) of the step

    A loss finds the whole memory as batch["memory"]. Nothing is differentiated through it.
    """

    init: Callable[[Any], Any]
    draw: Callable[[Any, Array, int], dict[str, Array]]
    update: Callable[[Any, Array, Any, Any, Array], Any]


def nothing(memory: Any, key: Array, num: int) -> dict[str, Array]:
    """`Memory.draw` of a memory that examples get nothing of."""
    return {}


def of_times(sampler: TimeSampler) -> Memory:
    """The memory of a time sampler: the losses that it has seen. Examples get times "t" and their weights."""

    def draw(memory: Any, key: Array, num: int) -> dict[str, Array]:
        t, weight = sampler.sample(memory, key, num)
        return {"t": t, "weight": weight}

    def update(memory: Any, key: Array, params: Any, batch: Any, losses: Array) -> Any:
        return sampler.update(memory, batch["t"], jnp.asarray(losses))

    return Memory(lambda params: sampler.init(), draw, update)
