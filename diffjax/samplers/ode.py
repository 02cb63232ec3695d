"""Solvers of the probability flow d(x/alpha)/d(sigma/alpha) = eps, (x_0, eps) being the pair that is predicted.

heun              Heun's second-order rule: ddim's x_s, plus
                  ½ (sigma_s - sigma_t alpha_s/alpha_t) (eps(x_s) - eps)     (Karras et al. 2022, algorithm 1)
dpmpp_2m          x_s = (sigma_s/sigma_t) x_t - alpha_s expm1(-h) D, D extrapolated from the last two x_0,
                  h = ½(λ_s - λ_t)                                           (Lu et al. 2022, algorithm 2)
probability_flow  adaptive steps of `sde.transport` to a tolerance           (Song et al. 2021, section 4.3)
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from diffjax.predictions import Predict, convert, pair
from diffjax.processes import Gaussian
from diffjax.samplers.driver import State, Stepper, at, start
from diffjax.sde.equations import sample_from
from diffjax.sde.flow import earliest, transport


def heun(process: Gaussian) -> Stepper:
    """Second order in the step for smooth densities, two evaluations a step, one in the step to s = 0."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, eps = pair(predict(state.x, t), schedule, state.x, t)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = at(schedule, t, state.x), at(schedule, s, state.x)
        euler = alpha_s * x0 + sigma_s * eps

        def corrected() -> Array:
            _, end = pair(predict(euler, s), schedule, euler, s)
            # x/alpha is large where alpha is small: corrected for Heun's rule, Euler's step keeps its digits.
            return euler + 0.5 * (sigma_s - sigma_t * alpha_s / alpha_t) * (end - eps)

        return State(jax.lax.cond(s > 0, corrected, lambda: euler), x0, schedule.log_snr(t))

    return Stepper(process.prior, start, step)


def dpmpp_2m(process: Gaussian) -> Stepper:
    """DPM-Solver++(2M): second order from one evaluation a step; the first and the last step are of first order."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, _ = pair(predict(state.x, t), schedule, state.x, t)
        (_, sigma_t), (alpha_s, sigma_s) = at(schedule, t, state.x), at(schedule, s, state.x)
        log_snr, log_snr_s = (jnp.asarray(schedule.log_snr(time), state.x.dtype) for time in (t, s))
        h = 0.5 * (log_snr_s - log_snr)  # +inf in the step to s = 0
        last_h = 0.5 * (log_snr - state.log_snr)  # +inf before there is a last estimate: no extrapolation
        ratio = jnp.where(jnp.isfinite(h), h, 0.0) / last_h
        direction = x0 + 0.5 * ratio * (x0 - state.x0)
        x = sigma_s / sigma_t * state.x - alpha_s * jnp.expm1(-h) * direction
        return State(x, x0, log_snr)

    return Stepper(process.prior, start, step)


def probability_flow(process: Gaussian) -> Stepper:
    """From t to s by an adaptive solver. One step from 1 to 0 is the cheapest; more show the way.

    The step to s = 0 goes as far as `sde.sample_from`, and from there to the estimate of x_0: it is
    `sde.decode(..., denoise=True)`.
    """
    last = earliest(process.schedule, sample_from(process.schedule))

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        end = jnp.maximum(s, jnp.asarray(last, s.dtype))
        x = jax.lax.cond(t > end, lambda: transport(process, predict, state.x, t, end).x, lambda: state.x)
        x0 = convert(predict(x, end), "x0", process, x, end)
        return State(jnp.where(s == 0, x0, x), x0, process.schedule.log_snr(end))

    return Stepper(process.prior, start, step)
