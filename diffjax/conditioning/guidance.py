"""Unbiased conditioning, from p(x) to p(x) r(x): Predict -> Predict, by r_t(x_t) = E[r(x_0) | x_t].

    guided     score + ∇ log r_t. For bits, r is the prior's probability of a 1, k = alpha_bar_t, and
               κ = (1 - k)² r (1 - r)/k,   p'(x_0 ≠ x_t) = ρ (p(x_0 ≠ x_t) + κ) - κ,   ρ = r_t(x_t flipped)/r_t(x_t)
    expected   log r_t of an observation
    plugged    log r(x̂_0(x_t)), for any r
    given      guided by the expected observation

The rule for bits follows from the ratio of probabilities after a flip of one bit of x_t,
p_t(flipped)/p_t(x_t) = Σ_a p(x_0 = a | x_t) q(flipped | a)/q(x_t | a), which is linear in p(x_0 ≠ x_t | x_t).
Conditioning multiplies this ratio by ρ (Nisonoff et al. 2024). The rule solves for p'.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes
from diffjax.conditioning.measurements import Measurement
from diffjax.conditioning.observations import Observation, check_bits, check_fits, event_sum, fitting
from diffjax.conditioning.slopes import LogR, bit_log_odds, gradient
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert, pair, unpair
from diffjax.processes import Binomial, Gaussian
from diffjax.reference import GaussianMixture
from diffjax.schedules import Schedule, before_end, broadcast_to, no_signal_at_end

Covariance = Literal["full", "isotropic"]
MAX_FULL = 1024  # entries of an event; with more, a D x D covariance per example is too large


def given(
    process: Gaussian | Binomial,
    predict: Predict,
    observation: Observation | Measurement,
    covariance: Covariance = "full",
) -> Predict:
    """The Predict of p(x_0 | observation), for every sampler: `guided` by the `expected` observation.

    Entries that are known exactly are predicted exactly. The gradient of a network would give them only approximately.
    """
    if isinstance(observation, Measurement):
        check_fits(process, observation)
        inner = given(process, observation.inwards(predict), observation.seen, covariance)
        return observation.outwards(inner)
    guide = guided(process, predict, expected(process, predict, observation, covariance))
    if isinstance(process, Binomial):
        return guide

    def known(xt: Array, t: Array) -> Prediction:
        xt = dtypes.as_float(xt)
        prediction = guide(xt, t)
        y, precision = fitting(observation, xt)
        alpha, sigma = broadcast_to(process.schedule.alpha(t), xt), broadcast_to(process.schedule.sigma(t), xt)
        x0, eps = pair(prediction, process.schedule, xt, t)
        exact = jnp.isinf(precision)
        x0, eps = jnp.where(exact, y, x0), jnp.where(exact, (xt - alpha * y) / sigma, eps)
        return replace(prediction, value=unpair(prediction.kind, process.schedule, x0, eps, t))

    return known


def guided(process: Gaussian | Binomial, predict: Predict, log_r: LogR) -> Predict:
    """The Predict of p(x_0) r(x_0): it adds ∇ log r_t to the score of p.

    It is exact if log_r(x_t, t) = log E[r(x_0) | x_t] + constant. An example is a classifier of x_t with
    log_r = log p(class | x_t) (Dhariwal & Nichol 2021; Song et al. 2021, eq. 14). The prediction keeps its kind, and a
    learned variance keeps its value. If alpha(1) = 0, the gradient says nothing at t = 1. The estimate there is that of
    `schedules.before_end`.

    For bits, log_r is not differentiated but evaluated D + 1 times, where D is the number of entries of an event. The
    prediction has the kind "logits". At alpha_bar = 0 the prediction does not change, because x_t says nothing.

    Raises:
        InputError: if log_r is not of shape (batch,) or, outside jit, if its gradient is not finite (for bits: if its
            value is NaN).
    """

    if isinstance(process, Binomial):
        return partial(_guided_bits, process, predict, log_r)
    return partial(_guided_gaussian, process, predict, log_r)


def expected(
    process: Gaussian | Binomial,
    predict: Predict,
    observation: Observation | Measurement,
    covariance: Covariance = "full",
) -> LogR:
    """log E[r(x_0) | x_t] up to a constant, for t > 0. p(x_0 | x_t) is taken from the model's prediction.

    Gaussian processes: p(x_0 | x_t) is a Normal with mean x̂_0(x_t) and one of two covariances.

        "full"       (sigma²/alpha) ∂x̂_0/∂x_t, the covariance of p(x_0 | x_t) by Tweedie's second formula (Boys et al.
                     2023). The gradient does not go through it. So `guided` is the Kalman update of x̂_0, which is
                     exact if p is Gaussian. It costs D evaluations and a D x D system per example: for small events.
        "isotropic"  sigma²/(alpha² + sigma²) I, exact if p is N(·, I) (Song et al. 2023, pseudoinverse guidance). It
                     costs one reverse pass through the network: for images. Near t = 1 the x̂_0 of an eps-network
                     leaves the data's range, and the gradient grows as 1/alpha²: put `predictions.clip` around it.
                     In the example of `tilted` at ρ = 0.8, `given` has mean 0.767 y and variance 0.379 with it, where
                     0.8 y and 0.36 are right. See also the example of `measurements`.

    Bits: the entries of x_0 are independent, with the predicted probabilities. This is exact for one known bit, or if
    bits are independent given x_t. `covariance` is not used.

    Raises:
        InputError: if the observation's shape is not the event's, if it has other values than 0 and 1 for bits, if
            covariance is unknown, or if it is "full" for an event of more than 1024 entries.
    """
    if covariance not in ("full", "isotropic"):
        raise InputError(f"covariance must be 'full' or 'isotropic', not {covariance!r}")
    check_fits(process, observation)
    if isinstance(observation, Measurement):
        log_r = expected(process, observation.inwards(predict), observation.seen, covariance)
        return lambda xt, t: log_r(observation.coordinates(xt), t)
    if isinstance(process, Binomial):
        return partial(_expected_bits, predict, observation)
    return partial(_expected_full if covariance == "full" else _expected_isotropic, process, predict, observation)


def plugged(process: Gaussian, predict: Predict, log_r: Callable[[Array], Array]) -> LogR:
    """log r(x̂_0(x_t)), the likelihood of the estimate in place of E[r(x_0) | x_t], for any r with a gradient.

    `guided` by it is diffusion posterior sampling as in theorem 1 of Chung et al. (2023). Their algorithm is `dps`.
    `twisted` corrects the bias. x̂_0 takes the place of x_0, so r is overconfident while x_t is noise.
    **Biased**: in the Gaussian example of `measurements`, a mean is wrong by 0.58 posterior standard deviations. The
    trace of the covariance is 0.83 of the right one.

    Args:
        log_r: x_0 (batch, *event) -> (batch,), in nats up to a constant, e.g. `Measurement.log_r`.

    Raises:
        InputError: if the process is not Gaussian.
    """
    if isinstance(process, Binomial):
        raise InputError("plugged is for Gaussian processes: the estimate of a bit is a probability, not a bit")
    return lambda xt, t: log_r(convert(predict(xt, t), "x0", process, xt, t))


def denoising_start(
    process: Gaussian | Binomial, y: Float[Array, "batch *event"], noise: float, times: ArrayLike
) -> tuple[Float[Array, "batch *event"], Float[Array, " num_times"]]:
    """The start of a chain that draws from the model's p(x_0 | y), where y = x_0 + noise · N(0, I). Exact for any p.

    alpha y is the forward process x_t at the time t with sigma/alpha = noise. Continue with
    `samplers.denoise(stepper, predict, key, *denoising_start(...))` and a random stepper: `ancestral`, or `ddim` with
    eta = 1. A deterministic stepper has only one path from y. For bits, `noise` is the probability of a flip. It
    corresponds to a time of the process if the prior is ½.

    Args:
        times: the sampler's grid, descending to 0. The times below t are kept, after t. They must be concrete: call
            this outside jit.

    Raises:
        InputError: if times do not descend within [0, 1], if noise is not positive or is more than at the schedule's
            end, if y has other values than 0 and 1 for bits, or if the prior of bits is not ½.
    """
    schedule: Schedule = process.schedule
    y, times = dtypes.as_float(y), np.asarray(times)
    if times.ndim != 1 or not ((times >= 0) & (times <= 1)).all() or not (np.diff(times) < 0).all():
        raise InputError(f"times must fall from 1 to 0, not be {times}: the time of step i of T is i/T")
    if isinstance(process, Binomial):
        check_bits(y)
        if not 0 < noise < 0.5 or process.prob != 0.5:
            raise InputError(
                f"noise={noise}, the flip probability, must be in (0, 0.5), and the process must have prior 0.5, not "
                f"prior {process.prob}: otherwise use given(process, predict, flipped(y, probability))"
            )
        log_snr = float(np.log1p(-2 * noise) - np.log(2 * noise))
    elif not noise > 0:
        raise InputError(f"the noise's standard deviation must be positive, not {noise}")
    else:
        log_snr = -2.0 * float(np.log(noise))
    low, high = 0.0, 1.0
    if log_snr < float(schedule.log_snr(high)):
        raise InputError(
            f"noise={noise} is more than the noise at the schedule's end: use given(...) with all the times"
        )
    for _ in range(30):  # to 1e-9, below what a float32 time resolves
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(schedule.log_snr(middle)) > log_snr else (low, middle)
    t = jnp.asarray(np.concatenate([[high], times[times < high * (1 - 1e-6)]]), float)
    return (y if isinstance(process, Binomial) else broadcast_to(schedule.alpha(high), y) * y), t


def _expected_bits(predict: Predict, observation: Observation, xt: Array, t: Array) -> Array:
    xt = dtypes.as_float(xt)
    odds = fitting(observation, xt).log_odds
    logits = _logits(predict(xt, t))
    on = jax.nn.log_sigmoid(logits) + jnp.minimum(odds, 0.0)
    off = jax.nn.log_sigmoid(-logits) + jnp.minimum(-odds, 0.0)
    return event_sum(jnp.where(odds == 0, 0.0, jnp.logaddexp(on, off)))


def _expected_isotropic(process: Gaussian, predict: Predict, observation: Observation, xt: Array, t: Array) -> Array:
    xt = dtypes.as_float(xt)
    y, precision = fitting(observation, xt)
    known = precision > 0
    alpha, sigma = broadcast_to(process.schedule.alpha(t), xt), broadcast_to(process.schedule.sigma(t), xt)
    variance = sigma**2 / (alpha**2 + sigma**2) + 1.0 / jnp.where(known, precision, 1.0)
    x0 = convert(predict(xt, t), "x0", process, xt, t)
    return event_sum(jnp.where(known, Normal(x0, variance).log_prob(y), 0.0))


def _expected_full(process: Gaussian, predict: Predict, observation: Observation, xt: Array, t: Array) -> Array:
    xt = dtypes.as_float(xt)
    batch, size, t = xt.shape[0], xt[0].size, before_end(process.schedule, t)
    if size > MAX_FULL:
        raise InputError(f"covariance='full' is for events of at most {MAX_FULL} entries, not {size}: use 'isotropic'")

    def denoiser(flat: Array) -> Array:
        x = flat.reshape(xt.shape)
        return convert(predict(x, t), "x0", process, x, t).reshape(batch, size)

    x0, push = jax.linearize(denoiser, xt.reshape(batch, size))
    basis = jnp.broadcast_to(jnp.eye(size, dtype=xt.dtype)[:, None], (size, batch, size))
    jacobian = jnp.moveaxis(jax.vmap(push)(basis), 0, -1)
    alpha, power = (broadcast_to(a, jacobian) for a in (process.schedule.alpha(t), process.schedule.sigma(t) ** 2))
    cov = 0.5 * power / alpha * (jacobian + jnp.swapaxes(jacobian, -1, -2))  # a network's is symmetric only nearly
    # The rounding error of x̂_0 is that of x_t over alpha, and the covariance has its square. The floor covers it where
    # alpha is tiny. If there is still no Cholesky factor, the network is wrong, and "isotropic" takes its place.
    eye = jnp.eye(size, dtype=xt.dtype)
    cov = jax.lax.stop_gradient(cov + 16 * jnp.finfo(xt.dtype).eps * power / alpha**2 * eye)
    sound = jnp.isfinite(jnp.linalg.cholesky(cov)).all((-2, -1))
    cov = jnp.where(broadcast_to(sound, cov), cov, power / (alpha**2 + power) * eye)
    y, precision = (jnp.broadcast_to(a, xt.shape).reshape(batch, size) for a in fitting(observation, xt))

    def evidence(mean: Array, cov: Array, y: Array, precision: Array) -> Array:
        return GaussianMixture(jnp.ones(1, mean.dtype), mean[None], cov[None]).log_evidence(y, precision)

    return jax.vmap(evidence)(x0, cov, y, precision)


def _guided_gaussian(process: Gaussian, predict: Predict, log_r: LogR, xt: Array, t: Array) -> Prediction:
    xt, schedule, seen = dtypes.as_float(xt), process.schedule, before_end(process.schedule, t)
    prediction = shifted(process, predict(xt, seen), xt, seen, gradient(log_r, xt, seen))
    if not no_signal_at_end(schedule):
        return prediction
    x0, eps = pair(prediction, schedule, xt, seen)
    alpha, sigma = broadcast_to(schedule.alpha(t), xt), broadcast_to(schedule.sigma(t), xt)
    eps = jnp.where(broadcast_to(jnp.asarray(t > seen), xt), (xt - alpha * x0) / sigma, eps)
    return replace(prediction, value=unpair(prediction.kind, schedule, x0, eps, t))


def shifted(process: Gaussian, prediction: Prediction, xt: Array, t: Array, slope: Array) -> Prediction:
    """The prediction with `slope` added to its score. It stays as it is where alpha = 0."""
    alpha, sigma = broadcast_to(process.schedule.alpha(t), xt), broadcast_to(process.schedule.sigma(t), xt)
    x0, eps = pair(prediction, process.schedule, xt, t)
    slope = jnp.where(alpha == 0, 0.0, slope)
    x0, eps = x0 + sigma**2 / jnp.where(alpha == 0, 1.0, alpha) * slope, eps - sigma * slope
    return replace(prediction, value=unpair(prediction.kind, process.schedule, x0, eps, t))


def _guided_bits(process: Binomial, predict: Predict, log_r: LogR, xt: Array, t: Array) -> Prediction:
    xt = dtypes.as_float(xt)
    rate, prob = broadcast_to(process.schedule.integrated_rate(t), xt), jnp.asarray(process.prob, xt.dtype)
    keep, fresh = jnp.exp(-rate), -jnp.expm1(-rate)
    kappa = jnp.where(keep > 0, fresh**2 * prob * (1 - prob) / jnp.where(keep > 0, keep, 1.0), 0.0)
    sign = 1 - 2 * xt
    logits = _logits(predict(xt, t))
    ratio = jnp.exp(sign * bit_log_odds(log_r, xt, t))
    changed = jnp.clip(ratio * (jax.nn.sigmoid(sign * logits) + kappa) - kappa, 0.0, 1.0)
    value = sign * (jnp.log(changed) - jnp.log1p(-changed))
    return Prediction(jnp.where(keep > 0, value, logits), "logits")


def _logits(prediction: Prediction) -> Array:
    value = prediction.value
    return value if prediction.kind == "logits" else jnp.log(value) - jnp.log1p(-value)
