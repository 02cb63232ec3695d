"""Samplers: steppers from time t to time s < t, and one driver.

With (x_0, eps) the pair that the prediction implies at (x_t, t):

    ancestral  x_s ~ p(x_s | x_t)                                                  (Ho et al. 2020, algorithm 2)
    ddim       x_s = alpha_s x_0 + √(sigma_s² - η²β̃) eps + η√β̃ z                  (Song et al. 2021, eq. 12)
    heun       d(x/alpha)/d(sigma/alpha) = eps by Heun's second-order rule        (Karras et al. 2022, algorithm 1):
               ddim's x_s, plus ½ (sigma_s - sigma_t alpha_s/alpha_t) (eps(x_s) - eps)
    dpmpp_2m   x_s = (sigma_s/sigma_t) x_t - alpha_s expm1(-h) D, D extrapolated
               from the last two x_0, h = ½(λ_s - λ_t)                             (Lu et al. 2022, algorithm 2)

Steppers get explicit (t, s) pairs: any decreasing sequence of times is a sampler, and there is no "previous timestep".
A sample keeps the floating type of the x_1 that it began with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager, schedules
from diffjax.distributions import Distribution, Normal
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert, pair
from diffjax.processes import Gaussian, Process, Variance
from diffjax.schedules import Schedule, broadcast_to


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
        times: descending from 1 to 0, e.g. `schedule.times[::-1]` or `spaced(schedule.times, 50)`. Their floating type
            is that of the samples.
        shape: (batch, *event).
        save: what to keep of the state after every step, e.g. `lambda state: state.x`. None keeps nothing.

    Returns:
        x_0 of that shape; with `save`, also what was saved, stacked over steps: (x_0, saved).

    Raises:
        InputError: if concrete times do not decrease, or are not in [0, 1].
    """
    _check_times(times)
    prior_key, key = jax.random.split(key)
    x = stepper.prior(shape).sample(prior_key).astype(floating(times))
    return denoise(stepper, predict, key, x, times, save)


def denoise(
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    x: Float[Array, "batch *event"],
    times: Float[Array, " num_times"],
    save: Callable[[State], Any] | None = None,
) -> Any:
    """`sample` from a given x at times[0] instead of from the prior."""
    _check_times(times)

    def run(key: PRNGKeyArray, x: Array, times: Array) -> tuple[State, Any]:
        def batched(x: Array, t: Array) -> Prediction:
            return predict(x, jnp.broadcast_to(t, x.shape[:1]))

        def body(state: State, item: tuple[Array, Array, Array]) -> tuple[State, Any]:
            i, t, s = item
            new = stepper.step(jax.random.fold_in(key, i), batched, state, t, s)
            state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new, state)
            return state, None if save is None else save(state)

        steps = (jnp.arange(times.shape[0] - 1), times[:-1], times[1:])
        return jax.lax.scan(body, stepper.init(x), steps)

    x = as_float(x)
    state, saved = eager.once(run, key, x, jnp.asarray(times, x.dtype))
    return state.x if save is None else (state.x, saved)


def spaced(times: Float[Array, " num_times"], num_steps: int) -> Float[Array, " num_kept"]:
    """A sub-sequence of `num_steps` steps, evenly spaced, of the grid `times`; descending, both ends included.

    Raises:
        InputError: if the grid has fewer steps than that.
    """
    available = len(times) - 1
    if not 1 <= num_steps <= available:
        raise InputError(f"steps must be from 1 to the chain's {available}, not {num_steps}")
    index = np.round(np.linspace(available, 0, num_steps + 1)).astype(int)  # in float64: float32 repeats indices
    return jnp.sort(jnp.asarray(times))[index]


def ancestral(process: Process, variance: Variance = "posterior") -> Stepper:
    """Draws from the reverse kernel; a Gaussian step to s = 0 takes its mean, as in algorithm 2 of Ho et al. 2020."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        prediction = predict(state.x, t)
        kernel = process.reverse(prediction, state.x, s, t, variance)
        x0 = convert(prediction, "x0", process, state.x, t)
        if not isinstance(kernel, Normal):
            return State(kernel.sample(key), x0, process.schedule.log_snr(t))
        # The mean of a Normal is a picture without the last step's noise; the mean of a bit is no bit. The variance of
        # a last step that is also the first is 0, and the gradient of its root infinite: none of it is used.
        noisy = kernel._replace(variance=jnp.where(s == 0, 1.0, kernel.variance))
        return State(jnp.where(s == 0, kernel.mean, noisy.sample(key)), x0, process.schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def ddim(process: Gaussian, eta: ArrayLike = 0.0) -> Stepper:
    """Non-Markovian sampler with the same marginals: deterministic at eta = 0, `ancestral("posterior")` at eta = 1."""
    # numpy, because jnp would trace the comparison of even a concrete eta under jit
    deterministic = not isinstance(eta, jax.core.Tracer) and bool((np.asarray(eta) == 0).all())

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, eps = pair(predict(state.x, t), schedule, state.x, t)
        alpha_s, sigma_s = _at(schedule, s, state.x)
        if deterministic:
            return State(alpha_s * x0 + sigma_s * eps, x0, schedule.log_snr(t))
        posterior = process.posterior(x0, state.x, s, t).variance
        scale = broadcast_to(eta, state.x)
        kept = jnp.maximum(sigma_s**2 - scale**2 * posterior, 0.0)
        noise = scale * schedules.sqrt(posterior) * jax.random.normal(key, state.x.shape, state.x.dtype)
        return State(alpha_s * x0 + schedules.sqrt(kept) * eps + noise, x0, schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def heun(process: Gaussian) -> Stepper:
    """Second order in the step for smooth densities, two evaluations a step, one in the step to s = 0."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, eps = pair(predict(state.x, t), schedule, state.x, t)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _at(schedule, t, state.x), _at(schedule, s, state.x)
        euler = alpha_s * x0 + sigma_s * eps

        def corrected() -> Array:
            _, end = pair(predict(euler, s), schedule, euler, s)
            # x/alpha is large where alpha is small: corrected for Heun's rule, Euler's step keeps its digits.
            return euler + 0.5 * (sigma_s - sigma_t * alpha_s / alpha_t) * (end - eps)

        return State(jax.lax.cond(s > 0, corrected, lambda: euler), x0, schedule.log_snr(t))

    return Stepper(process.prior, _init, step)


def dpmpp_2m(process: Gaussian) -> Stepper:
    """DPM-Solver++(2M): second order from one evaluation a step; the first and the last step are of first order."""

    def step(key: PRNGKeyArray, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, _ = pair(predict(state.x, t), schedule, state.x, t)
        (_, sigma_t), (alpha_s, sigma_s) = _at(schedule, t, state.x), _at(schedule, s, state.x)
        log_snr, log_snr_s = (jnp.asarray(schedule.log_snr(time), state.x.dtype) for time in (t, s))
        h = 0.5 * (log_snr_s - log_snr)  # +inf in the step to s = 0
        last_h = 0.5 * (log_snr - state.log_snr)  # +inf before there is a last estimate: no extrapolation
        ratio = jnp.where(jnp.isfinite(h), h, 0.0) / last_h
        direction = x0 + 0.5 * ratio * (x0 - state.x0)
        x = sigma_s / sigma_t * state.x - alpha_s * jnp.expm1(-h) * direction
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

    Raises:
        InputError: as `sample`.
    """
    _check_times(times)

    def run(key: PRNGKeyArray, a: Array, b: Array, weights: Array, times: Array) -> Array:
        a_key, b_key, key = jax.random.split(key, 3)
        start, end = process.marginal(a, times[0]).sample(a_key), process.marginal(b, times[0]).sample(b_key)
        weight = weights.reshape(-1, *(1 for _ in a.shape))
        mixed = (1 - weight) * start + weight * end
        return jax.vmap(lambda x: denoise(stepper, predict, key, x[None], times)[0])(mixed)

    dtype = floating(a, b)
    return eager.once(run, key, *(jnp.asarray(value, dtype) for value in (a, b, weights, times)))


def _check_times(times: Array) -> None:
    if jnp.ndim(times) != 1 or len(times) < 2:
        raise InputError(f"times must be a vector of at least 2 times, not of shape {jnp.shape(times)}")
    # numpy, because jnp would trace the comparison of even concrete times under jit
    if not isinstance(times, jax.core.Tracer) and not (np.diff(np.asarray(times)) < 0).all():
        raise InputError("times must decrease strictly, from 1 towards 0: reverse them with times[::-1]")
    schedules.check_times("times", times)


def _at(schedule: Schedule, t: Array, x: Array) -> tuple[Array, Array]:
    """alpha and sigma at t, to multiply x."""
    return broadcast_to(schedule.alpha(t), x), broadcast_to(schedule.sigma(t), x)


def _init(x: Array) -> State:
    return State(x, jnp.zeros_like(x), jnp.full((), -jnp.inf, x.dtype))
