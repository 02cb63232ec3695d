"""Solvers of the probability flow d(x/alpha)/d(sigma/alpha) = eps, with (x_0, eps) the predicted pair.

euler             Euler's rule: ddim's x_s
heun              Heun's second-order rule: ddim's x_s, plus
                  ½ (sigma_s - sigma_t alpha_s/alpha_t) (eps(x_s) - eps)     (Karras et al. 2022, algorithm 1)
probability_flow  adaptive steps of `sde.transport` to a tolerance           (Song et al. 2021, section 4.3)
mean_flow         x_s = x_t - (t - s) u(x_t, s, t), u the mean velocity       (Geng et al. 2025, eq. 12)

The first two may be churned (Karras et al. 2022, algorithm 2). `exponential` has the solvers of higher order.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.predictions import Predict, convert, pair
from diffjax.processes import Gaussian
from diffjax.samplers.churn import with_churn
from diffjax.samplers.diffusion import ddim
from diffjax.samplers.driver import Noise, State, Stepper, at, start
from diffjax.schedules import Schedule
from diffjax.sde.equations import sample_from
from diffjax.sde.flow import earliest, transport

Average = Callable[[Array, Array, Array], Array]  # (xt (batch, *event), r (batch,), t (batch,)) -> (batch, *event)


def euler(
    process: Gaussian,
    churn: ArrayLike = 0.0,
    steps: int = 1,
    churn_noise: ArrayLike = 1.0,
    churn_levels: tuple[ArrayLike, ArrayLike] = (0.0, math.inf),
) -> Stepper:
    """Euler's rule in the noise level, first order, one evaluation a step; see `heun` for the arguments."""
    return with_churn(process, ddim(process), churn, steps, churn_noise, churn_levels)


def heun(
    process: Gaussian,
    churn: ArrayLike = 0.0,
    steps: int = 1,
    churn_noise: ArrayLike = 1.0,
    churn_levels: tuple[ArrayLike, ArrayLike] = (0.0, math.inf),
) -> Stepper:
    """Second order in the step for smooth densities, two evaluations a step, one in the step to s = 0.

    Args:
        churn: S_churn; 0 is deterministic. Noise is raised by γ = min(churn/steps, √2 - 1).
        steps: n, the number of steps. Only churn uses it.
        churn_noise, churn_levels: S_noise and (S_tmin, S_tmax), see `churned`.

    Raises:
        InputError: as `churned`.
    """
    return with_churn(process, _heun(process), churn, steps, churn_noise, churn_levels)


def _heun(process: Gaussian) -> Stepper:
    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        first, euler = _euler(schedule, predict, state.x, t, s)
        x = jax.lax.cond(s > 0, lambda: _corrected(schedule, predict, first, euler, t, s), lambda: euler)
        return State(x, first[0], schedule.log_snr(t))

    return Stepper(process.prior, start, step)


def flow_step(
    process: Gaussian,
    predict: Predict,
    xt: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    s: Float[Array, " batch"],
    order: int = 2,
) -> Float[Array, "batch *event"]:
    """x_s after one step of `euler` (order 1) or `heun` (order 2). Each example has its own times t and s > 0."""
    first, euler = _euler(process.schedule, predict, xt, t, s)
    return euler if order == 1 else _corrected(process.schedule, predict, first, euler, t, s)


def _euler(schedule: Schedule, predict: Predict, xt: Array, t: Array, s: Array) -> tuple[tuple[Array, Array], Array]:
    """The pair (x_0, eps) at x_t, and Euler's x_s."""
    x0, eps = pair(predict(xt, t), schedule, xt, t)
    alpha_s, sigma_s = at(schedule, s, xt)
    return (x0, eps), alpha_s * x0 + sigma_s * eps


def _corrected(
    schedule: Schedule, predict: Predict, first: tuple[Array, Array], euler: Array, t: Array, s: Array
) -> Array:
    """Heun's x_s from Euler's and the pair at x_t."""
    x0, eps = first
    (alpha_t, sigma_t), (alpha_s, sigma_s) = at(schedule, t, euler), at(schedule, s, euler)
    end_x0, end_eps = pair(predict(euler, s), schedule, euler, s)
    # x/alpha is large where alpha is small. Euler's step plus Heun's correction keeps its digits there. At
    # alpha = 0 the rule is that of d(x/sigma)/d(alpha/sigma) = x_0.
    of_noise = 0.5 * (sigma_s - sigma_t * alpha_s / jnp.where(alpha_t == 0, 1.0, alpha_t)) * (end_eps - eps)
    return euler + jnp.where(alpha_t == 0, 0.5 * alpha_s * (end_x0 - x0), of_noise)


def probability_flow(process: Gaussian) -> Stepper:
    """From t to s by an adaptive solver. One step from 1 to 0 is the cheapest; more steps show the path.

    The step to s = 0 solves down to `sde.sample_from`, and then takes the estimate of x_0. It is
    `sde.decode(..., denoise=True)`.
    """
    last = earliest(process.schedule, sample_from(process.schedule))

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        end = jnp.maximum(s, jnp.asarray(last, s.dtype))
        x = jax.lax.cond(t > end, lambda: transport(process, predict, state.x, t, end).x, lambda: state.x)
        x0 = convert(predict(x, end), "x0", process, x, end)
        return State(jnp.where(s == 0, x0, x), x0, process.schedule.log_snr(end))

    return Stepper(process.prior, start, step)


def mean_flow(process: Gaussian, average: Average) -> Stepper:
    """Steps of any length by the mean velocity between t and s: one evaluation each, and exact if u is exact.

    Args:
        average: u, see `losses.mean_flow`. The stepper holds it, because a Predict has only one time. The Predict that
            `sample` gets is not used.
    """

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        u = average(state.x, *(jnp.broadcast_to(time, state.x.shape[:1]) for time in (s, t)))
        return State(state.x - (t - s) * u, state.x - t * u, process.schedule.log_snr(t))

    return Stepper(process.prior, start, step)
