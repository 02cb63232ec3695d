"""Warm-up: a step size by dual averaging and a diagonal mass by running variances, in windows as in Stan.

Dual averaging (Nesterov 2009; Hoffman & Gelman 2014, eq. 6) moves the mean acceptance probability α_t to a target δ:

    log ε_{t+1} = μ - √t/γ · 1/(t + t₀) Σ_{i ≤ t} (δ - α_i),   log ε̄_{t+1} = t^-κ log ε_{t+1} + (1 - t^-κ) log ε̄_t

with γ = 0.05, t₀ = 10, κ = 0.75, μ = log 10 ε₀. The first 15% of the steps tune ε alone. Then come windows of 25, 50,
100, ... steps. The variances of a window become M⁻¹ of the next, shrunk towards 10⁻³ as in Stan, and ε starts again.
The last 10%, but at least 15 steps, tune ε to the final mass: a new ε begins ten times too large, and fewer steps would
not bring it down. If fewer than 10 steps are left for variances, M⁻¹ stays 1.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.dtypes import floating
from diffjax.errors import InputError
from diffjax.mcmc.integrators import Position, check_num_steps, check_step_size, promoted
from diffjax.mcmc.kernel import Kernel, can_move

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
FIRST_WINDOW, LEAST_WINDOW, LEAST_LAST = 25, 10, 15


class Warmup(NamedTuple):
    """The result of a warm-up.

    step_size: (), for `make_kernel`.
    inverse_mass: the diagonal, like the position: estimates of the target's variances.
    position: that of the chain at the end.
    """

    step_size: Float[Array, ""]
    inverse_mass: Position
    position: Position


class _Averaging(NamedTuple):
    num: Array
    centre: Array  # μ
    error: Array  # Σ (δ - α)
    log_step: Array
    log_average: Array


class _Variance(NamedTuple):
    num: Array
    mean: Position
    squares: Position  # Σ (x - mean)², by Welford's update


def warmup(
    make_kernel: Callable[[Array, Position], Kernel],
    key: PRNGKeyArray,
    position: Position,
    num_steps: int,
    target_acceptance: float = 0.8,
    step_size: ArrayLike = 1.0,
) -> Warmup:
    """Runs one chain of `num_steps` and tunes its kernel. `vmap` over key and position tunes each chain by itself.

    Args:
        make_kernel: (step size, diagonal inverse mass like the position) -> Kernel whose info has an
            `acceptance_probability`, e.g. `lambda eps, mass: hmc(log_density, eps, 10, mass)` or
            `lambda h, mass: langevin(log_density, h, metropolis=True, inverse_mass=mass)`.
        num_steps: at least 20. A few hundred are usual.
        target_acceptance: δ. 0.8 suits HMC (Hoffman & Gelman 2014), 0.574 suits MALA (Roberts & Rosenthal 1998).
        step_size: the first step size. It may be wrong by many orders of magnitude.

    Raises:
        InputError: if num_steps is not an integer of at least 20, the target is not in (0, 1), step_size is not
            positive and finite, the kernel has no acceptance probability, or as its `init` for the position.

    A chain that starts where its log-density or its score is not finite never moves. If that start is traced, there is
    no error: the step size is NaN.
    """
    num_steps = check_num_steps("num_steps", num_steps, least=20)
    check_step_size(step_size)
    if not 0 < target_acceptance < 1:
        raise InputError(f"target_acceptance must be between 0 and 1, not {target_acceptance}")
    position = promoted(position)
    dtype = floating(position)
    first, target = jnp.asarray(step_size, dtype), jnp.asarray(target_acceptance, dtype)
    unit = jax.tree.map(jnp.ones_like, position)

    def step(carry: Any, item: tuple[PRNGKeyArray, Array, Array]) -> tuple[Any, None]:
        state, averaging, variance, mass = carry
        key, slow, ends = item
        state, info = make_kernel(jnp.exp(averaging.log_step), mass).step(key, state)
        if getattr(info, "acceptance_probability", None) is None:
            raise InputError("warmup needs a kernel with an acceptance probability: use e.g. hmc with a log_density")
        averaging = _average(averaging, target - jnp.asarray(info.acceptance_probability, dtype))
        variance = _choose(slow, _observe(variance, state.position), variance)
        mass = _choose(ends, _estimate(variance), mass)
        averaging = _choose(ends, _start(averaging.log_average), averaging)
        variance = _choose(ends, _empty(position), variance)
        return (state, averaging, variance, mass), None

    def program(state: Any, key: PRNGKeyArray) -> Warmup:
        carry: Any = (state, _start(jnp.log(first)), _empty(position), unit)
        items = (jax.random.split(key, num_steps), *_windows(num_steps))
        (last, averaging, _, mass), _ = jax.lax.scan(step, carry, items)
        step_size = jnp.where(can_move(state), jnp.exp(averaging.log_average), jnp.nan)
        return Warmup(step_size, mass, last.position)

    return eager.once(program, make_kernel(first, unit).init(position), key)


def _windows(num_steps: int) -> tuple[Array, Array]:
    """The steps that count towards variances, and those that end a window. The last window takes all that remain."""
    start, stop = round(0.15 * num_steps), num_steps - max(round(0.1 * num_steps), LEAST_LAST)
    slow, ends = np.zeros(num_steps, bool), np.zeros(num_steps, bool)
    if stop - start < LEAST_WINDOW:
        return jnp.asarray(slow), jnp.asarray(ends)
    slow[start:stop] = True
    end, size = start, FIRST_WINDOW
    while end < stop:
        end = end + size if end + 3 * size <= stop else stop
        ends[end - 1] = True
        size *= 2
    return jnp.asarray(slow), jnp.asarray(ends)


def _start(log_step: Array) -> _Averaging:
    zero = jnp.zeros_like(log_step)
    return _Averaging(zero, log_step + math.log(10.0), zero, log_step, log_step)


def _average(state: _Averaging, error: Array) -> _Averaging:
    count, total = state.num + 1, state.error + error
    log_step = state.centre - jnp.sqrt(count) / GAMMA * total / (count + T0)
    weight = count**-KAPPA
    return _Averaging(count, state.centre, total, log_step, weight * log_step + (1 - weight) * state.log_average)


def _empty(position: Position) -> _Variance:
    zeros = jax.tree.map(jnp.zeros_like, position)
    return _Variance(jnp.zeros(()), zeros, zeros)


def _observe(state: _Variance, x: Position) -> _Variance:
    count = state.num + 1
    mean = jax.tree.map(lambda mean, x: mean + (x - mean) / count.astype(x.dtype), state.mean, x)
    squares = jax.tree.map(lambda s, old, new, x: s + (x - old) * (x - new), state.squares, state.mean, mean, x)
    return _Variance(count, mean, squares)


def _estimate(state: _Variance) -> Position:
    """The variances of the window, averaged with 10⁻³ by the weights n and 5."""

    def one(squares: Array) -> Array:
        num = state.num.astype(squares.dtype)
        weight = num / (num + 5.0)
        return weight * squares / jnp.maximum(num - 1, 1) + (1 - weight) * 1e-3

    return jax.tree.map(one, state.squares)


def _choose(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), new, old)
