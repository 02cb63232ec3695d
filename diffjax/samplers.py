"""Samplers: steppers from time t to time s < t, and one driver.

With (x_0, eps) the pair that the prediction implies at (x_t, t):

    ancestral  x_s ~ p(x_s | x_t)                                                  (Ho et al. 2020, algorithm 2)
    ddim       x_s = alpha_s x_0 + √(sigma_s² - η²β̃) eps + η√β̃ z                  (Song et al. 2021, eq. 12)
    heun       d(x/alpha)/d(sigma/alpha) = eps by Heun's second-order rule        (Karras et al. 2022, algorithm 1)
    dpmpp_2m   x_s = (sigma_s/sigma_t) x_t - alpha_s expm1(-h) D, D extrapolated
               from the last two x_0, h = ½(λ_s - λ_t)                             (Lu et al. 2022, algorithm 2)

Steppers get explicit (t, s) pairs: any decreasing sequence of times is a sampler, and there is no "previous timestep".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.distributions import Distribution, Normal
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert, pair
from diffjax.processes import Gaussian, Process, Variance
from diffjax.schedules import broadcast_to


class State(NamedTuple):
    """Where a sampler is.

    x: (batch, *event), the sample so far.
    x0: (batch, *event), the latest estimate of the end point: progressive generation shows this.
    log_snr: (), at which x0 was estimated; -inf before there was any estimate.
    """

    x: Float[Array, "batch *event"]
    x0: Float[Array, "batch *event"]
    log_snr: Float[Array, ""]


class Stepper(NamedTuple):
    """prior(shape) -> where x at time 1 comes from; init(x) -> state; step(key, predict, state, t, s) -> state."""

    prior: Callable[[tuple[int, ...]], Distribution]
    init: Callable[[Array], State]
    step: Callable[[PRNGKeyArray, Predict, State, Array, Array], State]


def sample(
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    times: Float[Array, " num_times"],
    shape: tuple[int, ...],
    save: Callable[[State], Any] | None = None,
) -> Any:
    """Draws x_1 from the prior and follows the times down: one `lax.scan`, memory independent of their number.

    Args:
        times: descending from 1 to 0, e.g. `schedule.times[::-1]` or `spaced(schedule.times, 50)`.
        shape: (batch, *event).
        save: what to keep of the state after every step, e.g. `lambda state: state.x`. None keeps nothing.

    Returns:
        x_0 of that shape; with `save`, also what was saved, stacked over steps: (x_0, saved).

    Raises:
        InputError: if concrete times do not decrease.
    """
    prior_key, key = jax.random.split(key)
    return denoise(stepper, predict, key, stepper.prior(shape).sample(prior_key), times, save)


def denoise(
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    x: Float[Array, "batch *event"],
    times: Float[Array, " num_times"],
    save: Callable[[State], Any] | None = None,
) -> Any:
    """`sample` from a given x at times[0] instead of from the prior."""
    times = jnp.asarray(times)
    if times.ndim != 1 or times.shape[0] < 2:
        raise InputError(f"times must be a vector of at least 2 times, not of shape {times.shape}")
    # numpy, because jnp would trace the comparison of even concrete times under jit
    if not isinstance(times, jax.core.Tracer) and not (np.diff(np.asarray(times)) < 0).all():
        raise InputError("times must decrease strictly, from 1 towards 0: reverse them with times[::-1]")

    def body(state: State, item: tuple[Array, Array, Array]) -> tuple[State, Any]:
        i, t, s = item
        state = stepper.step(jax.random.fold_in(key, i), batched, state, t, s)
        return state, None if save is None else save(state)

    def batched(x: Array, t: Array) -> Prediction:
        return predict(x, jnp.broadcast_to(t, x.shape[:1]))

    steps = (jnp.arange(times.shape[0] - 1), times[:-1], times[1:])
    state, saved = jax.lax.scan(body, stepper.init(x), steps)
    return state.x if save is None else (state.x, saved)


def spaced(times: Float[Array, " num_times"], num_steps: int) -> Float[Array, " num_kept"]:
    """A sub-sequence of `num_steps` steps, evenly spaced, of the grid `times`; descending, both ends included.

    Raises:
        InputError: if the grid has fewer steps than that.
    """
    available = len(times) - 1
    if not 1 <= num_steps <= available:
        raise InputError(f"steps must be from 1 to the chain's {available}, not {num_steps}")
    index = jnp.round(jnp.linspace(available, 0, num_steps + 1)).astype(int)
    return jnp.sort(jnp.asarray(times))[index]


def ancestral(process: Process, variance: Variance = "posterior") -> Stepper:
    """Draws from the reverse kernel; a Gaussian step to s = 0 takes its mean, as in algorithm 2 of Ho et al. 2020."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        prediction = predict(state.x, t)
        kernel = process.reverse(prediction, state.x, s, t, variance)
        x0 = convert(prediction, "x0", process, state.x, t)
        # The mean of a Normal is a picture without the last step's noise; the mean of a bit is no bit.
        x = jnp.where(s == 0, kernel.mean, kernel.sample(key)) if isinstance(kernel, Normal) else kernel.sample(key)
        return State(x, x0, process.schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def ddim(process: Gaussian, eta: float = 0.0) -> Stepper:
    """Non-Markovian sampler with the same marginals: deterministic at eta = 0, `ancestral("posterior")` at eta = 1."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, eps = pair(predict(state.x, t), schedule, state.x, t)
        fresh = eta**2 * process.posterior(x0, state.x, s, t).variance
        kept = jnp.maximum(schedule.sigma(s) ** 2 - fresh, 0.0)
        x = schedule.alpha(s) * x0 + jnp.sqrt(kept) * eps
        if eta != 0:
            x = x + jnp.sqrt(fresh) * jax.random.normal(key, x.shape, x.dtype)
        return State(x, x0, schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def heun(process: Gaussian) -> Stepper:
    """Second order in the step for smooth densities, two evaluations a step, one in the step to s = 0."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, slope = pair(predict(state.x, t), schedule, state.x, t)
        start, end = schedule.sigma(t) / schedule.alpha(t), schedule.sigma(s) / schedule.alpha(s)
        scaled = state.x / schedule.alpha(t)
        euler = scaled + (end - start) * slope

        def corrected() -> Array:
            x = schedule.alpha(s) * euler
            _, end_slope = pair(predict(x, s), schedule, x, s)
            return scaled + (end - start) * 0.5 * (slope + end_slope)

        x = schedule.alpha(s) * jax.lax.cond(s > 0, corrected, lambda: euler)
        return State(x, x0, schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def dpmpp_2m(process: Gaussian) -> Stepper:
    """DPM-Solver++(2M): second order from one evaluation a step; the first and the last step are of first order."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, _ = pair(predict(state.x, t), schedule, state.x, t)
        log_snr = schedule.log_snr(t)
        h = 0.5 * (schedule.log_snr(s) - log_snr)
        last_h = 0.5 * (log_snr - state.log_snr)  # +inf before there is a last estimate: no extrapolation
        ratio = jnp.where(jnp.isfinite(h) & jnp.isfinite(last_h), h / last_h, 0.0)
        direction = x0 + 0.5 * ratio * (x0 - state.x0)
        x = schedule.sigma(s) / schedule.sigma(t) * state.x - schedule.alpha(s) * jnp.expm1(-h) * direction
        return State(x, x0, log_snr)

    return Stepper(process.prior, _init, step)


def interpolate(
    process: Gaussian,
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    a: Float[Array, " *event"],
    b: Float[Array, " *event"],
    weights: Float[Array, " num"],
    times: Float[Array, " num_times"],
) -> Float[Array, "num *event"]:
    """Decodes (1-λ) a_t + λ b_t, for each λ in `weights`, t = times[0] (Ho et al. 2020, section 4.4 and figure 8).

    a and b are noised to t with draws of their own, held fixed over λ, and one key drives all the chains, so that
    only λ changes along the row.
    """
    a_key, b_key, key = jax.random.split(key, 3)
    start, end = process.marginal(a, times[0]).sample(a_key), process.marginal(b, times[0]).sample(b_key)
    weight = broadcast_to(weights, jnp.zeros((weights.shape[0], *a.shape)))
    mixed = (1 - weight) * start + weight * end
    return jax.vmap(lambda x: denoise(stepper, predict, key, x[None], times)[0])(mixed)


def _init(x: Array) -> State:
    return State(x, jnp.zeros_like(x), jnp.full((), -jnp.inf, x.dtype))
