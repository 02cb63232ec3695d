"""What a system carries from step to step beside its parameters. (Placeholder of the branch `core`: see `training`.)"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from diffjax.time_sampling import TimeSampler


class Memory(NamedTuple):
    init: Callable[[Any], Any]
    draw: Callable[[Any, Array, int], dict[str, Array]]
    update: Callable[[Any, Array, Any, Any, Array], Any]


def of_times(sampler: TimeSampler) -> Memory:
    def draw(memory: Any, key: Array, num: int) -> dict[str, Array]:
        t, weight = sampler.sample(memory, key, num)
        return {"t": t, "weight": weight}

    return Memory(
        lambda params: sampler.init(), draw, lambda m, key, params, batch, losses: sampler.update(m, batch["t"], losses)
    )
