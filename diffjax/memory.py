"""What a system carries from step to step beside its parameters: the losses seen at each time, chains, a codebook.

The state m of a memory is any pytree of arrays. In a step with parameters θ and a batch x of num examples

    d_i  = draw(m, key, num)_i           fields of its own for each example: its time, its chain
    L_i  = loss(θ, x_i, d_i, m)          the loss may read all of m; no gradient goes to m
    θ'   = θ - ∇_θ (1/num) Σ_i w_i L_i   w = d["weight"] if it is drawn, else 1
    m'   = update(m, key', θ', (x, d), L)
    θ'   = hand_over(m', θ')             where parts of θ are the memory's

All functions see the batch and the memory as a whole, however many devices share them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.time_sampling import TimeSampler


class Memory(NamedTuple):
    """Pure functions; `memory` is any pytree of arrays, () where there is nothing to remember.

    init(params) -> memory, before the first step
    draw(memory, key, num) -> {name: (num, ...)}, further fields of a batch of num examples, {} if there are none.
        "weight" (num,), if it is drawn, weighs the loss of each example
    update(memory, key, params, batch, losses) -> memory, after a step: it gets the new parameters, the whole batch with
        the drawn fields, and the losses of the batch (num,), not weighted
    hand_over(memory, params) -> params, after `update`, with those parts that the memory determines, such as a codebook
        of running means. These parts get no gradient. None: there are none
    of_teacher: whether it keeps the initial parameters of training as a teacher. They must then come from another run

    The loss finds the memory as batch["memory"], and each drawn field under its name.
    """

    init: Callable[[Any], Any]
    draw: Callable[[Any, PRNGKeyArray, int], dict[str, Array]]
    update: Callable[[Any, PRNGKeyArray, Any, dict[str, Array], Float[Array, " num"]], Any]
    of_teacher: bool = False
    hand_over: Callable[[Any, Any], Any] | None = None


def of_times(sampler: TimeSampler) -> Memory:
    """The memory of a time sampler: it draws batch["t"] (num,) with weights, and learns from the losses seen there.

    The step descends (1/num) Σ_i w_i L_i(t_i). That is an unbiased estimate of E_t[L] when w_i is one over the density
    from which t_i came (Nichol & Dhariwal 2021, section 3.3).
    """

    def draw(memory: Any, key: PRNGKeyArray, num: int) -> dict[str, Array]:
        t, weight = sampler.sample(memory, key, num)
        return {"t": t, "weight": weight}

    return Memory(
        init=lambda params: sampler.init(),
        draw=draw,
        update=lambda memory, key, params, batch, losses: sampler.update(memory, batch["t"], losses),
    )
