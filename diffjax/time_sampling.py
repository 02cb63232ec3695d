"""How the times of a training batch are drawn: `init() -> state`, `sample(state, key, num) -> (t, weights)`, `update`.

On the grid i/T, i = 1..T, E[weights · f(t)] is the mean of f for every sampler, so the choice changes the variance of a
loss and not its mean:

    uniform          independent draws
    low_discrepancy  one draw shifted by 1/num: num equidistant points mod 1  (Kingma et al. 2021, appendix I.1)
    loss_aware       p_t ∝ √E[L_t²] over the last losses seen at t, weights 1/(T p_t)  (Nichol & Dhariwal 2021, eq. 18)

Without a grid, the density of t is part of the objective. Draws are evenly spread over its quantiles:

    continuous       t uniform on [start, 1]
    log_normal       log(sigma/alpha) ~ N(mean, std²)                         (Karras et al. 2022, table 1)
    logit_normal     log(t/(1 - t)) ~ N(mean, std²)                           (Esser et al. 2024, eq. 19)
    mode             t = 1 - u - scale (cos²(πu/2) - 1 + u), u uniform        (Esser et al. 2024, eq. 20)
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax import eager, randomness, registry
from diffjax.errors import InputError
from diffjax.schedules import Schedule, time_of


class TimeSampler(NamedTuple):
    """Three pure functions; `state` is any pytree of arrays, () where there is nothing to remember.

    init() -> state
    sample(state, key, num) -> t (num,) in (0, 1], weights (num,)
    update(state, t (num,), losses (num,)) -> state
    """

    init: Callable[[], Any]
    sample: Callable[[Any, PRNGKeyArray, int], tuple[Array, Array]]
    update: Callable[[Any, Array, Array], Any]


class History(NamedTuple):
    """The last losses at every step of the chain. losses (T, length) is a ring buffer; seen (T,) counts all losses."""

    losses: Float[Array, "num_steps length"]
    seen: Int[Array, " num_steps"]


def uniform(num_steps: int) -> TimeSampler:
    """Independent and uniform on the grid; weights 1. The key may be one per time (`randomness`)."""

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        return _grid(randomness.uniform(key, (num,)), num_steps), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def low_discrepancy(num_steps: int) -> TimeSampler:
    """Each t uniform on the grid, all of them evenly spread; weights 1."""

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        return _grid(_stratified(key, num), num_steps), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def continuous(start: float) -> TimeSampler:
    """Each t uniform on [start, 1], all of them evenly spread; weights 1."""

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        return start + (1.0 - start) * _stratified(key, num), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def log_normal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> TimeSampler:
    """The noise level sigma/alpha is log-normal, clipped to the level at t = 1; weights 1."""

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        level = mean + std * jax.scipy.special.ndtri(_inner(_stratified(key, num)))
        return time_of(schedule, -2.0 * level), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeSampler:
    """The log-odds of t are normal; weights 1."""

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        return jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(_inner(_stratified(key, num)))), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def mode(scale: ArrayLike = 1.29) -> TimeSampler:
    """More times near the middle for scale > 0, fewer for scale < 0; 0 is uniform; weights 1.

    Raises:
        InputError: unless -1 <= scale <= 2/(π - 2), the range in which t decreases with u.
    """
    most = 2.0 / (math.pi - 2.0)
    if not isinstance(scale, jax.core.Tracer) and not -1 <= np.asarray(scale) <= most:
        raise InputError(f"the scale of mode times must be from -1 to {most:.4f}, 2/(π - 2), not {scale}")

    def sample(_: tuple, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        u = _stratified(key, num)
        t = 1.0 - u - scale * (jnp.cos(0.5 * jnp.pi * u) ** 2 - 1.0 + u)
        return jnp.clip(t, 1e-7, 1.0), jnp.ones(num)

    return TimeSampler(tuple, sample, lambda state, t, losses: state)


def loss_aware(num_steps: int, length: int = 10, floor: float = 0.001) -> TimeSampler:
    """p_t ∝ √ mean of the last `length` squared losses at t, mixed with `floor` of uniform; uniform until all are seen.

    Give `update` the losses whose mean should have a low variance (the terms of L_vlb in the paper).
    """

    def init() -> History:
        return History(jnp.zeros((num_steps, length)), jnp.zeros(num_steps, int))

    def probabilities(state: History) -> Array:
        weight = jnp.sqrt(jnp.mean(state.losses**2, axis=1))
        learned = (1 - floor) * weight / jnp.maximum(weight.sum(), 1e-30) + floor / num_steps
        return jnp.where(jnp.all(state.seen >= length), learned, 1 / num_steps)

    def sample(state: History, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
        p = probabilities(state)
        index = jax.random.categorical(key, jnp.log(p), shape=(num,))
        return (index + 1) / num_steps, 1 / (num_steps * p[index])

    def update(state: History, t: Array, losses: Array) -> History:
        index = jnp.round(t * num_steps).astype(int) - 1

        def push(state: History, item: tuple[Array, Array]) -> tuple[History, None]:
            i, loss = item
            place = state.seen[i] % length
            return History(state.losses.at[i, place].set(loss), state.seen.at[i].add(1)), None

        losses = jnp.asarray(losses, state.losses.dtype)
        return eager.once(lambda state, *seen: jax.lax.scan(push, state, seen)[0], state, index, losses)

    return TimeSampler(init, sample, update)


# Samplers on the grid i/T, by name: num_steps -> TimeSampler.
TIME_SAMPLERS: dict[str, Callable[[int], TimeSampler]] = {
    "uniform": uniform,
    "low_discrepancy": low_discrepancy,
    "loss_aware": loss_aware,
}


def _continuous(schedule: Schedule, time_start: float = 1e-5) -> TimeSampler:
    return continuous(time_start)


def _log_normal(schedule: Schedule, time_mean: float = -1.2, time_std: float = 1.2) -> TimeSampler:
    return log_normal(schedule, time_mean, time_std)


def _logit_normal(schedule: Schedule, time_mean: float = 0.0, time_std: float = 1.0) -> TimeSampler:
    return logit_normal(time_mean, time_std)


def _mode(schedule: Schedule, time_scale: float = 1.29) -> TimeSampler:
    return mode(time_scale)


# Samplers without a grid, by name: (schedule, settings of a configuration) -> TimeSampler.
ALL_TIMES: dict[str, Callable[..., TimeSampler]] = {
    "uniform": _continuous,
    "log_normal": _log_normal,
    "logit_normal": _logit_normal,
    "mode": _mode,
}


def of_all_times(field: str, name: str, schedule: Schedule, settings: Mapping[str, Any]) -> TimeSampler:
    """ALL_TIMES[name] with those of `settings` that it takes: time_mean, time_std, time_scale.

    Raises:
        InputError: on an unknown name (the message calls it `field`), or a setting out of range.
    """
    return registry.build(registry.choose(field, name, ALL_TIMES), schedule, settings=settings)


def _stratified(key: PRNGKeyArray, num: int) -> Array:
    """`num` points of [0, 1), each uniform, all evenly spread."""
    shift_key, order_key = jax.random.split(key)
    u = (jax.random.uniform(shift_key) + jnp.arange(num) / num) % 1.0
    # In random order, so that an example's place in the batch says nothing about its time.
    return jax.random.permutation(order_key, u)


def _inner(u: Array) -> Array:
    """u in [0, 1), kept off the ends, where a normal quantile is infinite."""
    return jnp.clip(u, 1e-7, 1 - 1e-7)


def _grid(u: Array, num_steps: int) -> Array:
    """u in [0, 1) -> the grid i/T, i = 1..T."""
    return (jnp.minimum((u * num_steps).astype(int), num_steps - 1) + 1) / num_steps
