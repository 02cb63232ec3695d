"""Multiplying distributions: from samples of p(x) to samples of p(x) r(x)/Z, with r what is known of x_0.

An observation is r(x_0) = Π_i exp(-½ precision_i (y_i - x_i)²): precision 0 where nothing is known, +inf where x_i is.

    expected   r_t(x_t) = E[r(x_0) | x_t], so that p_t(x_t) r_t(x_t) is the law of x_t when x_0 ~ p r
    guided     score + ∇ log r_t; for bits, with r the prior's probability of a 1, k = alpha_bar_t and
               κ = (1 - k)² r (1 - r)/k,   p'(x_0 ≠ x_t) = ρ (p(x_0 ≠ x_t) + κ) - κ,   ρ = r_t(x_t flipped)/r_t(x_t)
    perturbed  N(μ + V ∇ log r(μ), V),   B(c d/(c d + (1 - c)(1 - d)))     (Sohl-Dickstein et al. 2015, section 2.5)
    tilted     the exact product of a kernel and an observation

`given` (guided by the expected observation) is the one to start with: Predict to Predict, it works with every sampler.
The paper's two kernels hold r constant over t, which is biased; their docstrings say by how much.

The rule for bits: with one bit of x_t flipped, p_t(flipped)/p_t(x_t) = Σ_a p(x_0 = a | x_t) q(flipped | a)/q(x_t | a),
linear in p(x_0 ≠ x_t | x_t). Multiplying by r_t multiplies it by ρ (Nisonoff et al. 2024), and the rule solves for p'.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from diffjax.distributions import Bernoulli, Distribution, Normal
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert, pair, unpair
from diffjax.processes import Binomial, Gaussian, Variance
from diffjax.reference import GaussianMixture
from diffjax.schedules import Schedule, broadcast_to

LogR = Callable[[Array, Array], Array]  # (x (batch, *event), t (batch,)) -> (batch,), up to a constant
Covariance = Literal["full", "isotropic"]
MAX_FULL = 1024  # entries of an event, beyond which a D x D covariance per example is a mistake


class Observation(NamedTuple):
    """r(x_0) = Π_i exp(-½ precision_i (y_i - x_i)²). Both broadcast against x: (batch, *event) or (*event)."""

    y: Float[Array, "..."]
    precision: Float[Array, "..."]

    def log_r(self, x: Float[Array, "batch *event"], t: ArrayLike = 0.0) -> Float[Array, " batch"]:
        """log r(x) in nats, the same at every t: what `perturbed` takes for the paper's kernels."""
        y, precision = _on(self, x)
        return _event_sum(jnp.where((precision == 0) | (x == y), 0.0, -0.5 * precision * (y - x) ** 2))

    @property
    def log_odds(self) -> Array:
        """log r(1)/r(0) of every entry, for bits."""
        return jnp.where(self.precision > 0, self.precision * (self.y - 0.5), 0.0)


def denoising(y: Float[Array, "..."], noise_std: ArrayLike) -> Observation:
    """y = x_0 + noise_std · N(0, I).

    Raises:
        InputError: if a concrete noise_std is not positive.
    """
    if not isinstance(noise_std, jax.core.Tracer) and not (np.asarray(noise_std) > 0).all():
        raise InputError(f"noise_std must be positive, not {noise_std}: for pixels known exactly use inpainting")
    y = _floating(y)
    return Observation(y, jnp.broadcast_to(1.0 / jnp.asarray(noise_std, y.dtype) ** 2, y.shape))


def inpainting(y: Float[Array, "..."], mask: Bool[Array, "..."]) -> Observation:
    """x_0 = y where the mask is True, and nothing known elsewhere (y may be anything there, NaN too).

    Args:
        mask: of y's shape, or of an event's if y has a batch axis in front.

    Raises:
        InputError: if the mask is not boolean, or of another shape.
    """
    y, mask = _floating(y), jnp.asarray(mask)
    if mask.dtype != bool:
        raise InputError(
            f"mask must be boolean, True where the value is known, not {mask.dtype}: use mask.astype(bool)"
        )
    fits = mask.ndim in (y.ndim - 1, y.ndim) and all(
        a in (1, b) for a, b in zip(mask.shape[::-1], y.shape[::-1], strict=False)
    )
    if not fits:
        raise InputError(
            f"mask has shape {mask.shape}, y {y.shape}: give it y's shape, with axes of size 1 to broadcast"
        )
    mask = jnp.broadcast_to(mask, y.shape)
    return Observation(jnp.where(mask, y, 0.0), jnp.where(mask, jnp.inf, jnp.zeros_like(y)))


def flipped(y: Float[Array, "..."], probability: ArrayLike) -> Observation:
    """Bits, each of which was flipped with this probability: 0 is known exactly, ½ tells nothing.

    Raises:
        InputError: if concrete bits are not 0 or 1, or a concrete probability is not in [0, ½].
    """
    y = _floating(y)
    _check_bits(y)
    if not isinstance(probability, jax.core.Tracer) and not (abs(np.asarray(probability) - 0.25) <= 0.25).all():
        raise InputError(f"the flip probability must be in [0, 0.5], not {probability}: above it, pass 1 - y and 1 - p")
    p = jnp.asarray(probability, y.dtype)
    return Observation(y, jnp.broadcast_to(2.0 * (jnp.log1p(-p) - jnp.log(p)), y.shape))


# The unbiased way: Predict -> Predict ----------------------------------------------------------------------------


def given(
    process: Gaussian | Binomial, predict: Predict, observation: Observation, covariance: Covariance = "full"
) -> Predict:
    """The Predict of p(x_0 | observation), for every sampler: `guided` by the `expected` observation, see there."""
    return guided(process, predict, expected(process, predict, observation, covariance))


def guided(process: Gaussian | Binomial, predict: Predict, log_r: LogR) -> Predict:
    """The Predict of p(x_0) r(x_0): that of p with ∇ log r_t added to its score.

    Exact if log_r(x_t, t) = log E[r(x_0) | x_t] + constant, as for a classifier of x_t with log_r = log p(class | x_t)
    (Dhariwal & Nichol 2021; Song et al. 2021, eq. 14). The prediction keeps its kind, and a learned variance its value.

    For bits log_r is evaluated D + 1 times instead of differentiated, D the entries of an event, and the prediction is
    of kind "logits". At alpha_bar = 0 x_t tells nothing and the prediction stays as it is.

    Raises:
        InputError: if log_r is not of shape (batch,), or, called outside jit, has a gradient (a value) that is NaN.
    """

    if isinstance(process, Binomial):
        return partial(_guided_bits, process, predict, log_r)
    return partial(_guided_gaussian, process, predict, log_r)


def expected(
    process: Gaussian | Binomial, predict: Predict, observation: Observation, covariance: Covariance = "full"
) -> LogR:
    """log E[r(x_0) | x_t] up to a constant, for t > 0, with p(x_0 | x_t) as the model's own prediction has it.

    Gaussian: the mean is x̂_0(x_t), and the covariance

        "full"       (sigma²/alpha) ∂x̂_0/∂x_t, that of p(x_0 | x_t) by Tweedie's second formula (Boys et al. 2023).
                     Exact whenever p is Gaussian; D evaluations and a D x D system per example, for small events.
        "isotropic"  sigma²/(alpha² + sigma²) I, exact if p is N(·, I) (Song et al. 2023, pseudoinverse guidance). One
                     reverse pass through the network: what images take, with `predictions.clip` round it if near t = 1
                     its x̂_0 leaves the data's range (an eps-network's does, and the gradient grows as 1/alpha²).
                     `tilted`'s example at ρ = 0.8 has mean 0.763 y and variance 0.380 (0.8 y and 0.36 are right).

    Bits: x_0 has the predicted, independent, probabilities: exact for one known bit, or if bits are independent given
    x_t. `covariance` is not used.

    Raises:
        InputError: if the observation's shape is not the event's, it has values other than 0 and 1 of bits, or
            covariance is unknown, or "full" for an event of more than 1024 entries.
    """
    if covariance not in ("full", "isotropic"):
        raise InputError(f"covariance must be 'full' or 'isotropic', not {covariance!r}")
    _check(process, observation)

    def bits(xt: Array, t: Array) -> Array:
        odds = _on(observation, xt).log_odds
        logits = _logits(predict(xt, t))
        on = jax.nn.log_sigmoid(logits) + jnp.minimum(odds, 0.0)
        off = jax.nn.log_sigmoid(-logits) + jnp.minimum(-odds, 0.0)
        return _event_sum(jnp.where(odds == 0, 0.0, jnp.logaddexp(on, off)))

    def isotropic(xt: Array, t: Array) -> Array:
        y, precision = _on(observation, xt)
        known = precision > 0
        alpha, sigma = broadcast_to(process.schedule.alpha(t), xt), broadcast_to(process.schedule.sigma(t), xt)
        variance = sigma**2 / (alpha**2 + sigma**2) + 1.0 / jnp.where(known, precision, 1.0)
        x0 = convert(predict(xt, t), "x0", process, xt, t)
        return _event_sum(jnp.where(known, Normal(x0, variance).log_prob(y), 0.0))

    def full(xt: Array, t: Array) -> Array:
        batch, size = xt.shape[0], xt[0].size
        if size > MAX_FULL:
            raise InputError(f"covariance='full' is for events of at most {MAX_FULL} entries, not {size}: 'isotropic'")

        def denoiser(flat: Array) -> Array:
            x = flat.reshape(xt.shape)
            return convert(predict(x, t), "x0", process, x, t).reshape(batch, size)

        x0, push = jax.linearize(denoiser, xt.reshape(batch, size))
        basis = jnp.broadcast_to(jnp.eye(size, dtype=xt.dtype)[:, None], (size, batch, size))
        jacobian = jnp.moveaxis(jax.vmap(push)(basis), 0, -1)
        factor = broadcast_to(process.schedule.sigma(t) ** 2 / process.schedule.alpha(t), jacobian)
        cov = 0.5 * factor * (jacobian + jnp.swapaxes(jacobian, -1, -2))  # a network's is symmetric only nearly
        y, precision = (jnp.broadcast_to(a, xt.shape).reshape(batch, size) for a in _on(observation, xt))

        def evidence(mean: Array, cov: Array, y: Array, precision: Array) -> Array:
            return GaussianMixture(jnp.ones(1, mean.dtype), mean[None], cov[None]).log_evidence(y, precision)

        return jax.vmap(evidence)(x0, cov, y, precision)

    if isinstance(process, Binomial):
        return bits
    return full if covariance == "full" else isotropic


def denoising_start(
    process: Gaussian | Binomial, y: Float[Array, "batch *event"], noise: float, times: ArrayLike
) -> tuple[Float[Array, "batch *event"], Float[Array, " num_times"]]:
    """Where a chain must start to draw from the model's own p(x_0 | y), exactly for any p, y = x_0 + noise · N(0, I).

    y is the forward process at the time with sigma/alpha = noise: alpha y is x_t there. Go on with
    `samplers.denoise(stepper, predict, key, *denoising_start(...))` and a random stepper, `ancestral` or `ddim` with
    eta = 1: a deterministic one knows only one way down from y. For bits `noise` is the probability with which each
    was flipped, which is a time of the process if its prior is ½.

    Args:
        times: the sampler's grid, descending to 0; those below t are kept behind t. Concrete: call this outside jit.

    Raises:
        InputError: if noise is not positive or beyond the schedule's end, if y has values other than 0 and 1 of bits,
            or the prior of bits is not ½.
    """
    schedule: Schedule = process.schedule
    if isinstance(process, Binomial):
        _check_bits(y)
        if not 0 < noise < 0.5 or process.prob != 0.5:
            raise InputError(
                f"flips with probability {noise} are no time of a process with prior {process.prob}: the probability "
                "must be in (0, 0.5) and the prior 0.5; use given(process, predict, flipped(y, probability))"
            )
        log_snr = float(np.log1p(-2 * noise) - np.log(2 * noise))
    elif not noise > 0:
        raise InputError(f"the noise's standard deviation must be positive, not {noise}")
    else:
        log_snr = -2.0 * float(np.log(noise))
    low, high = 0.0, 1.0
    if log_snr < float(schedule.log_snr(high)):
        raise InputError(
            f"noise {noise} is more than there is at the schedule's end: use given(...) with all the times"
        )
    for _ in range(30):  # to 1e-9, below what a float32 time resolves
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(schedule.log_snr(middle)) > log_snr else (low, middle)
    kept = np.asarray(times)
    t = jnp.concatenate([jnp.full(1, high), jnp.asarray(kept[kept < high * (1 - 1e-6)], float)])
    return (y if isinstance(process, Binomial) else schedule.alpha(high) * y), t


# The paper's kernels: Process -> Process -------------------------------------------------------------------------


class Multiplied(NamedTuple):
    """A process whose reverse kernel is changed: `multiply(kernel, xt, s)`. All else is the process's own."""

    process: Gaussian | Binomial
    multiply: Callable[[Distribution, Array, ArrayLike], Distribution]

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def prior(self, shape: tuple[int, ...]) -> Distribution:
        return self.process.prior(shape)

    def marginal(self, x0: Array, t: ArrayLike) -> Distribution:
        return self.process.marginal(x0, t)

    def transition(self, xs: Array, s: ArrayLike, t: ArrayLike) -> Distribution:
        return self.process.transition(xs, s, t)

    def posterior(self, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike) -> Distribution:
        return self.process.posterior(x0, xt, s, t)

    def reverse(
        self, prediction: Prediction, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance = "posterior"
    ) -> Distribution:
        return self.multiply(self.process.reverse(prediction, xt, s, t, variance), xt, s)


def perturbed(process: Gaussian | Binomial, log_r: LogR, probe: Float[Array, "batch *event"]) -> Multiplied:
    """The paper's perturbed kernels (Sohl-Dickstein et al. 2015, table App.1), for any r with a gradient.

    N(μ, V) becomes N(μ + V ∇ log r(μ, s), V). B(c) becomes B(c d/(c d + (1 - c)(1 - d))), d = r(1)/(r(0) + r(1)), where
    the other bits are as in x_t: exact if r factorises, and right to first order in the step if not.

    **Biased** where log_r does not depend on s, as in the paper. For p = N(0, 1) and r = N(1; x, τ² = 1) the samples
    have mean 2/3 and variance 1/3 after many steps, the posterior of r², where p r has 1/2 and 1/2. With
    log_r(x, s) = log E[r(x_0) | x_s = x], which is log r(x) at s = 0, the bias vanishes with the length of the steps.

    Args:
        probe: points such as those to be sampled, at which r is tried once: under jit nobody could report a NaN.

    Raises:
        InputError: if at the probe log_r is not of shape (batch,), or its gradient (for bits: its value) is not finite.
    """
    bits = isinstance(process, Binomial)
    if bits:
        _check_bits(probe)
    trial = jax.jit(partial(_bit_log_odds if bits else _gradient, log_r))
    _check_slope(trial(probe, jnp.full(probe.shape[0], 0.5)), bits)

    def multiply(kernel: Distribution, xt: Array, s: ArrayLike) -> Distribution:
        s = jnp.broadcast_to(s, xt.shape[:1])
        if isinstance(kernel, Bernoulli):
            return _tilted_bits(kernel, _bit_log_odds(log_r, xt, s))
        return Normal(kernel.mean + kernel.variance * _gradient(log_r, kernel.mean, s), kernel.variance)

    return Multiplied(process, multiply)


def tilted(process: Gaussian | Binomial, observation: Observation) -> Multiplied:
    """The exact product of every reverse kernel with r, held constant over t: precisions, or log-odds, add.

    A known entry is y itself at every s, as in the paper's inpainting: clean pixels next to noisy ones.

    **Biased.** For p = N(0, 1), y = 1, precision 1: mean 2/3 and variance 1/3 as in `perturbed`, where 1/2 and 1/2 is
    right. Inpainting x_2 from a known x_1 = y of a Gaussian of unit variances and correlation ρ, after many steps of a
    variance-preserving process, has

        mean      ρ y √(1 - ρ²) ∫_0^1 √u (1 - ρ² u²)^(-3/2) du     (0.606 y at ρ = 0.8, where 0.8 y is right)
        variance  (1 - ρ²) artanh(ρ)/ρ                              (0.494 at ρ = 0.8, where 0.36 is right)

    Raises:
        InputError: if the observation's shape is not the event's, or it has values other than 0 and 1 of bits.
    """
    _check(process, observation)

    def multiply(kernel: Distribution, xt: Array, s: ArrayLike) -> Distribution:
        y, precision = _on(observation, xt)
        if isinstance(kernel, Bernoulli):
            return _tilted_bits(kernel, Observation(y, precision).log_odds)
        exact = jnp.isinf(precision)
        ratio = kernel.variance * jnp.where(exact, 0.0, precision)
        gain = jnp.where(exact, 1.0, ratio / (1.0 + ratio))
        return Normal(jnp.where(exact, y, kernel.mean + gain * (y - kernel.mean)), (1.0 - gain) * kernel.variance)

    return Multiplied(process, multiply)


def _guided_gaussian(process: Gaussian, predict: Predict, log_r: LogR, xt: Array, t: Array) -> Prediction:
    alpha, sigma = broadcast_to(process.schedule.alpha(t), xt), broadcast_to(process.schedule.sigma(t), xt)
    prediction = predict(xt, t)
    slope = _gradient(log_r, xt, t)
    x0, eps = pair(prediction, process.schedule, xt, t)
    x0, eps = x0 + sigma**2 / alpha * slope, eps - sigma * slope
    return replace(prediction, value=unpair(prediction.kind, process.schedule, x0, eps, t))


def _guided_bits(process: Binomial, predict: Predict, log_r: LogR, xt: Array, t: Array) -> Prediction:
    rate = broadcast_to(process.schedule.integrated_rate(t), xt)
    keep, fresh = jnp.exp(-rate), -jnp.expm1(-rate)
    kappa = jnp.where(keep > 0, fresh**2 * process.prob * (1 - process.prob) / jnp.where(keep > 0, keep, 1.0), 0.0)
    sign = 1 - 2 * xt
    logits = _logits(predict(xt, t))
    ratio = jnp.exp(sign * _bit_log_odds(log_r, xt, t))
    changed = jnp.clip(ratio * (jax.nn.sigmoid(sign * logits) + kappa) - kappa, 0.0, 1.0)
    value = sign * (jnp.log(changed) - jnp.log1p(-changed))
    return Prediction(jnp.where(keep > 0, value, logits), "logits")


# What they share -------------------------------------------------------------------------------------------------


def _tilted_bits(kernel: Bernoulli, log_odds: Array) -> Bernoulli:
    # c d/(c d + (1 - c)(1 - d)) in log-odds; a bit that is known is known, whatever the kernel holds of it.
    return Bernoulli(jnp.where(jnp.isinf(log_odds), log_odds, kernel.logits + log_odds))


def _gradient(log_r: LogR, x: Array, t: Array) -> Array:
    def total(x: Array) -> Array:
        value = log_r(x, t)
        _check_shape(value, x)
        return value.sum()

    slope = jax.grad(total)(x)
    _check_slope(slope, bits=False)
    return slope


def _bit_log_odds(log_r: LogR, x: Array, t: Array) -> Array:
    """log r(x, bit i = 1) - log r(x, bit i = 0) for every i, the other bits as in x; 0 where r is 0 for both."""
    flat = x.reshape(x.shape[0], -1)
    here = log_r(x, t)
    _check_shape(here, x)

    def flip(i: Array) -> Array:
        return log_r(flat.at[:, i].set(1 - flat[:, i]).reshape(x.shape), t)

    size = flat.shape[1]
    there = jax.lax.map(flip, jnp.arange(size), batch_size=min(size, 32)).T.reshape(x.shape)
    here = broadcast_to(here, x)
    nothing = jnp.isneginf(here) & jnp.isneginf(there)
    odds = jnp.where(nothing, 0.0, (1 - 2 * x) * (there - jnp.where(nothing, 0.0, here)))
    _check_slope(odds, bits=True)
    return odds


def _logits(prediction: Prediction) -> Array:
    value = prediction.value
    return value if prediction.kind == "logits" else jnp.log(value) - jnp.log1p(-value)


def _check_slope(slope: Array, bits: bool) -> None:
    if isinstance(slope, jax.core.Tracer):
        return
    if bits and np.isnan(np.asarray(slope)).any():
        raise InputError("log r is NaN: it must be a number, or -inf where r is 0")
    if not bits and not np.isfinite(np.asarray(slope)).all():
        raise InputError(
            "the gradient of log r is not finite: r must be positive and smooth; for known pixels use inpainting with "
            "given or tilted"
        )


def _check_shape(value: Array, x: Array) -> None:
    if jnp.shape(value) != x.shape[:1]:
        raise InputError(f"log_r must return one number per example, {x.shape[:1]}, not shape {jnp.shape(value)}")


def _check(process: Gaussian | Binomial, observation: Observation) -> None:
    if isinstance(process, Binomial):
        _check_bits(observation.y, observation.precision)


def _floating(y: ArrayLike) -> Array:
    return jnp.asarray(y).astype(jnp.promote_types(jnp.result_type(y), jnp.float32))


def _check_bits(y: ArrayLike, precision: ArrayLike = 1.0) -> None:
    if isinstance(y, jax.core.Tracer) or isinstance(precision, jax.core.Tracer):
        return
    y, precision = np.broadcast_arrays(y, precision)
    known = y[precision > 0]
    wrong = known[(known != 0) & (known != 1)]
    if wrong.size:
        raise InputError(f"a binomial process observes bits, 0 or 1, not {wrong[0]}: binarise y")


def _on(observation: Observation, x: Array) -> Observation:
    shape = jnp.broadcast_shapes(jnp.shape(observation.y), jnp.shape(observation.precision))
    if len(shape) > x.ndim or any(a not in (1, b) for a, b in zip(shape[::-1], x.shape[::-1], strict=False)):
        raise InputError(f"the observation has shape {shape}, the samples {x.shape}: it must broadcast to theirs")
    return observation


def _event_sum(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).sum(1)
