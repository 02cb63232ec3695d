"""Diffusion processes: Markov chains q(x_t | x_0) that end in a prior, with every conditional in closed form.

Gaussian, x_t = alpha_t x_0 + sigma_t eps, λ_t = log(alpha_t²/sigma_t²), for s < t (Kingma et al. 2021, appendix A):

    q(x_t | x_s)       N(alpha_{t|s} x_s, sigma²_{t|s}),  alpha_{t|s} = alpha_t/alpha_s,  sigma²_{t|s} = r sigma_t²
    q(x_s | x_t, x_0)  N(exp(λ_t - λ_s) (alpha_s/alpha_t) x_t + alpha_s r x_0,  r sigma_s²)
    with r = -expm1(λ_t - λ_s), the share of the noise at t that was added since s.
    p(x_s | x_t)       N(the mean of q(x_s | x_t, x̂_0), one of four variances), x̂_0 the network's

In Ho et al. (2020) β is sigma²_{t|s} and β̃ is r sigma_s², the variance of q(x_s | x_t, x_0).

Only alpha and sigma at s and t are used: nothing depends on a number of steps, and any s < t is allowed. In a pair
(s, t), s = 0 means the data themselves, even for a schedule with sigma(0) > 0, such as `ve` or a learned one.

Binomial (Sohl-Dickstein et al. 2015, appendix B.2): from s to t a bit keeps its value with probability exp(L_s - L_t);
otherwise it is drawn anew from B(r). L is the schedule's integrated rate, r the prior's probability of a 1:

    q(x_t | x_s)       B(k x_s + (1 - k) r),  k = exp(L_s - L_t)
    q(x_s | x_t, x_0)  log-odds of q(x_s | x_0) plus log q(x_t | x_s = 1) - log q(x_t | x_s = 0), where
                       q(x_t | x_s) = k [x_t = x_s] + (1 - k) π(x_t),  π(1) = r, π(0) = 1 - r
    p(x_s | x_t)       Σ_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t), p(x_0 | x_t) the network's
"""

from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.distributions import Bernoulli, Distribution, Normal
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Prediction, convert
from diffjax.schedules import Schedule, VariancePreserving, broadcast_to, from_betas, log

Variance = Literal["posterior", "forward", "learned", "shifted"]


class Process(Protocol):
    """The conditionals of a diffusion. Times are in [0, 1] and have shape () or the leading axes of x; s < t.

    A conditional has the floating type of its x. The prior has no x: its type is jax's default.
    """

    @property
    def schedule(self) -> Schedule: ...
    def prior(self, shape: tuple[int, ...]) -> Distribution: ...
    def marginal(self, x0: Array, t: ArrayLike) -> Distribution: ...
    def transition(self, xs: Array, s: ArrayLike, t: ArrayLike) -> Distribution: ...
    def posterior(self, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike) -> Distribution: ...
    def reverse(
        self, prediction: Prediction, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance
    ) -> Distribution: ...


class Gaussian(NamedTuple):
    """The Gaussian process of a schedule."""

    schedule: Schedule

    def prior(self, shape: tuple[int, ...]) -> Normal:
        """p(x_1): the one prior that samplers draw from and bounds score with."""
        return Normal(jnp.zeros(shape), jnp.full(shape, self.schedule.prior_std**2))

    def marginal(self, x0: Float[Array, "*shape"], t: ArrayLike) -> Normal:
        """q(x_t | x_0)."""
        x0 = as_float(x0)
        return Normal(broadcast_to(self.schedule.alpha(t), x0) * x0, broadcast_to(self.schedule.sigma(t), x0) ** 2)

    def transition(self, xs: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Normal:
        """q(x_t | x_s)."""
        xs, s, t = _same_type(xs, s, t)
        alpha_ts = self.schedule.alpha(t) / self._alpha_of_earlier(s)  # alpha_{t|s}
        return Normal(broadcast_to(alpha_ts, xs) * xs, broadcast_to(self._forward_variance(s, t), xs))

    def posterior(self, x0: Float[Array, "*shape"], xt: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Normal:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        xt, s, t = _same_type(xt, s, t)
        alpha_s, alpha_t = self._alpha_of_earlier(s), self.schedule.alpha(t)
        snr_ratio, r = jnp.exp(self._log_snr_change(s, t)), self._r(s, t)  # exp(λ_t - λ_s)
        # From the same rounded λ as the variance. Where alpha_t = 0, x_t says nothing about x_s.
        of_xt = snr_ratio * alpha_s / jnp.where(alpha_t == 0, 1.0, alpha_t)
        mean = broadcast_to(of_xt, xt) * xt + broadcast_to(alpha_s * r, xt) * jnp.asarray(x0, xt.dtype)
        return Normal(mean, broadcast_to(self._posterior_variance(s, t), xt))

    def reverse(
        self,
        prediction: Prediction,
        xt: Float[Array, "*shape"],
        s: ArrayLike,
        t: ArrayLike,
        variance: Variance = "posterior",
    ) -> Normal:
        """p(x_s | x_t): the posterior with the predicted x_0 in place of x_0, and one of four variances.

        "posterior" is β̃ (exact if the data is a point). "forward" is β (exact if the data is N(0, I)). "learned"
        interpolates their logarithms by `prediction.log_var` (Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021,
        eq. 15). "shifted" adds `prediction.log_var` to the log-odds of β (Sohl-Dickstein et al. 2015, eq. 64). It is
        for variance-preserving schedules, whose β are below 1.

        At s = 0, β̃ is 0. There "posterior" and "learned" take the β̃ of the next step of equal length, (t, 2t), as the
        papers' codes do, or sigma(0)² if that is larger. At t = 1 there is no such step. "forward" is β at s = 0, too;
        the code of Ho et al. uses β̃_2 instead, and so does a `decoder` of pixels in `bounds`.

        Raises:
            InputError: on an unknown variance, or "learned" or "shifted" without `log_var`.
        """
        xt, s, t = _same_type(xt, s, t)
        x0 = convert(prediction, "x0", self, xt, t)
        mean = self.posterior(x0, xt, s, t).mean
        beta = broadcast_to(self._forward_variance(s, t), xt)
        if variance == "forward":
            return Normal(mean, beta)
        if variance == "shifted":
            return Normal(mean, beta / (beta + (1 - beta) * jnp.exp(-_log_var(prediction, variance, xt))))
        beta_tilde = broadcast_to(self._posterior_variance_above_0(s, t), xt)
        if variance == "posterior":
            return Normal(mean, beta_tilde)
        if variance == "learned":
            v = _log_var(prediction, variance, xt)
            return Normal(mean, jnp.exp(v * jnp.log(beta) + (1 - v) * jnp.log(beta_tilde)))
        raise InputError(f"variance must be 'posterior', 'forward', 'learned' or 'shifted', not {variance!r}")

    def _alpha_of_earlier(self, s: Array) -> Array:
        """alpha(s); in a pair s = 0 is the data themselves, whatever alpha(0) is."""
        return jnp.where(s == 0, 1.0, self.schedule.alpha(s))

    def _log_snr_change(self, s: Array, t: Array) -> Array:
        """λ_t - λ_s. In a pair s = 0 is free of noise, whatever sigma(0) is."""
        return jnp.where(s == 0, -jnp.inf, self.schedule.log_snr(t) - self.schedule.log_snr(s))

    def _r(self, s: Array, t: Array) -> Array:
        return -jnp.expm1(self._log_snr_change(s, t))

    def _forward_variance(self, s: Array, t: Array) -> Array:
        """β = r sigma_t²."""
        return self._r(s, t) * self.schedule.sigma(t) ** 2

    def _posterior_variance(self, s: Array, t: Array) -> Array:
        """β̃ = r sigma_s²."""
        return self._r(s, t) * jnp.where(s == 0, 0.0, self.schedule.sigma(s) ** 2)

    def _posterior_variance_above_0(self, s: Array, t: Array) -> Array:
        """β̃ of (s, t) for s > 0. At s = 0 it is β̃ of (t, 2t), or sigma(0)² if that is larger."""
        first = s == 0
        lower, upper = jnp.where(first, t, s), jnp.where(first, jnp.minimum(2 * t, 1.0), t)
        sigma_0_squared = jnp.where(first, self.schedule.sigma(jnp.zeros_like(t)) ** 2, 0.0)
        return jnp.maximum(self._posterior_variance(lower, upper), sigma_0_squared)


def gaussian(schedule: Schedule) -> Gaussian:
    """The Gaussian process x_t = alpha(t) x_0 + sigma(t) eps of a schedule."""
    return Gaussian(schedule)


class Binomial(NamedTuple):
    """The binomial process of a variance-preserving schedule on bits: arrays of 0.0 and 1.0.

    `prob` is r, the prior's probability of a 1.
    """

    schedule: VariancePreserving
    prob: Float[Array, "..."]

    def prior(self, shape: tuple[int, ...]) -> Bernoulli:
        """p(x_1) = B(r)."""
        prob = as_float(self.prob)
        return Bernoulli(jnp.broadcast_to(jnp.log(prob) - jnp.log1p(-prob), shape))

    def marginal(self, x0: Float[Array, "*shape"], t: ArrayLike) -> Bernoulli:
        """q(x_t | x_0)."""
        return self._noised(as_float(x0), self.schedule.integrated_rate(t))

    def transition(self, xs: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Bernoulli:
        """q(x_t | x_s)."""
        xs, s, t = _same_type(xs, s, t)
        return self._noised(xs, self.schedule.integrated_rate(t) - self.schedule.integrated_rate(s))

    def posterior(
        self, x0: Float[Array, "*shape"], xt: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike
    ) -> Bernoulli:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        xt, s, t = _same_type(xt, s, t)
        r = jnp.asarray(self.prob, xt.dtype)
        k, one_minus_k = _kept(broadcast_to(self.schedule.integrated_rate(t) - self.schedule.integrated_rate(s), xt))
        pi = r * xt + (1 - r) * (1 - xt)  # π(x_t)
        log_q_of_1, log_q_of_0 = jnp.log(k * xt + one_minus_k * pi), jnp.log(k * (1 - xt) + one_minus_k * pi)
        return Bernoulli(self.marginal(jnp.asarray(x0, xt.dtype), s).logits + (log_q_of_1 - log_q_of_0))

    def reverse(
        self,
        prediction: Prediction,
        xt: Float[Array, "*shape"],
        s: ArrayLike,
        t: ArrayLike,
        variance: Variance = "posterior",
    ) -> Bernoulli:
        """p(x_s | x_t), the mixture over the predicted x_0; at s = 0 the prediction itself.

        The prediction is of kind "logits" (log-odds of x_0 = 1) or "x0" (its probability); another kind is an error.
        There is no variance to choose: any value but "posterior" is an error.
        """
        xt, s, t = _same_type(xt, s, t)
        logits = _logits(prediction, variance, xt)
        # At s = 0 the posteriors are point masses with infinite log-odds: compute them at another s, and discard them.
        first = s == 0
        inner = jnp.where(first, 0.5 * t, s)
        ones = jnp.ones_like(xt)
        q_1, q_0 = self.posterior(ones, xt, inner, t).logits, self.posterior(0 * ones, xt, inner, t).logits
        # log p(x_0 = 1 | x_t), log p(x_0 = 0 | x_t), and the sums over x_0 of p(x_s = 1 | x_t) and p(x_s = 0 | x_t)
        log_p_1, log_p_0 = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        log_one = jnp.logaddexp(log_p_1 + jax.nn.log_sigmoid(q_1), log_p_0 + jax.nn.log_sigmoid(q_0))
        log_zero = jnp.logaddexp(log_p_1 + jax.nn.log_sigmoid(-q_1), log_p_0 + jax.nn.log_sigmoid(-q_0))
        return Bernoulli(jnp.where(broadcast_to(first, xt), logits, log_one - log_zero))

    def _noised(self, x: Array, rate: Array) -> Bernoulli:
        """B(k x + (1 - k) r), k = exp(-rate)."""
        r = jnp.asarray(self.prob, x.dtype)
        k, one_minus_k = _kept(broadcast_to(rate, x))
        return Bernoulli(log(k * x + one_minus_k * r) - log(k * (1 - x) + one_minus_k * (1 - r)))


def binomial(schedule: VariancePreserving | ArrayLike, prior: float = 0.5) -> Binomial:
    """The binomial process of a schedule, or of betas, the probabilities with which a step draws a bit anew.

    The last beta may be 1; the paper's 1/(T - t + 1) is `1 / jnp.arange(T, 0, -1)`, with alpha_bar_t = 1 - t/T.

    Raises:
        InputError: if the prior probability is not in (0, 1), or a beta not in (0, 1).
    """
    if not isinstance(prior, jax.core.Tracer) and not 0 < float(prior) < 1:
        raise InputError(f"the prior probability must be in (0, 1), not {prior}")
    if not isinstance(schedule, VariancePreserving):
        schedule = from_betas(schedule)
    return Binomial(schedule, as_float(prior))


def _kept(rate: Array) -> tuple[Array, Array]:
    """k and 1 - k."""
    return jnp.exp(-rate), -jnp.expm1(-rate)


def _log_var(prediction: Prediction, variance: Variance, xt: Array) -> Array:
    if prediction.log_var is None:
        raise InputError(f"variance={variance!r} needs a prediction with log_var: predict with learned_variance")
    return jnp.asarray(prediction.log_var, xt.dtype)


def _logits(prediction: Prediction, variance: Variance, xt: Array) -> Array:
    """The log-odds of x_0 = 1."""
    if prediction.kind not in ("logits", "x0"):
        raise InputError(f"a binomial process needs a prediction of kind 'logits' or 'x0', not {prediction.kind!r}")
    if variance != "posterior":
        raise InputError(f"a binomial process has no variance {variance!r}: leave it at 'posterior'")
    value = jnp.asarray(prediction.value, xt.dtype)
    return value if prediction.kind == "logits" else jnp.log(value) - jnp.log1p(-value)


def _same_type(x: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array, Array]:
    """x in its floating type, and the times in the same type."""
    x = as_float(x)
    return x, jnp.asarray(s, x.dtype), jnp.asarray(t, x.dtype)
