"""Diffusion processes: Markov chains q(x_t | x_0) that end in a prior, with every conditional in closed form.

Gaussian, x_t = alpha_t x_0 + sigma_t eps, λ_t = log(alpha_t²/sigma_t²), for s < t (Kingma et al. 2021, appendix A):

    q(x_t | x_s)       N(alpha_{t|s} x_s, sigma²_{t|s}),  alpha_{t|s} = alpha_t/alpha_s,  sigma²_{t|s} = r sigma_t²
    q(x_s | x_t, x_0)  N(exp(λ_t - λ_s) (alpha_s/alpha_t) x_t + alpha_s r x_0,  r sigma_s²)
    with r = -expm1(λ_t - λ_s), the share of the noise at t that was added since s.

Only alpha and sigma at the two ends enter: nothing depends on a number of steps, and any s < t will do. In a pair
(s, t) s = 0 is the data themselves, also for a schedule such as `ve` whose sigma(0) is not 0.

Binomial (Sohl-Dickstein et al. 2015, appendix B.2): from s to t a bit keeps its value with probability exp(L_s - L_t),
L the schedule's integrated rate, and is else drawn anew from B(r), r the prior's probability of a 1:

    q(x_t | x_s)       B(k x_s + (1 - k) r),  k = exp(L_s - L_t)
    q(x_s | x_t, x_0)  log-odds of q(x_s | x_0) plus log q(x_t | x_s = 1) - log q(x_t | x_s = 0)
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
    """The conditionals of a diffusion. Times are (), or of the leading axes of x, in [0, 1]; s < t.

    A conditional has the floating type of the x that it is given. The prior, which is given none, has jax's default.
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
        alpha = self.schedule.alpha(t) / self.schedule.alpha(s)
        return Normal(broadcast_to(alpha, xs) * xs, broadcast_to(self._forward_variance(s, t), xs))

    def posterior(self, x0: Float[Array, "*shape"], xt: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Normal:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        xt, s, t = _same_type(xt, s, t)
        alpha_s, alpha_t = self.schedule.alpha(s), self.schedule.alpha(t)
        of_xt = broadcast_to(jnp.exp(self._log_snr_change(s, t)) * alpha_s / alpha_t, xt)
        of_x0 = broadcast_to(alpha_s * self._r(s, t), xt)
        mean = of_xt * xt + of_x0 * jnp.asarray(x0, xt.dtype)
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

        "posterior" is β̃ (exact if the data is a point), "forward" is β (exact if the data is N(0, I)), "learned"
        interpolates their logarithms by `prediction.log_var` (Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021,
        eq. 15), "shifted" adds `prediction.log_var` to the log-odds of β, for variance-preserving schedules, whose β
        are below 1 (Sohl-Dickstein et al. 2015, eq. 64).

        At s = 0, where β̃ = 0, "posterior" and "learned" take the β̃ of the step of equal length above it, (t, 2t), as
        the papers' codes do, or sigma(0)² if that is more. At t = 1 there is no such step. "forward" is β there too:
        the code of Ho et al. has β̃_2 in its place, and so has a `decoder` of pixels in `bounds`.

        Raises:
            InputError: on an unknown variance, or "learned" or "shifted" without `log_var`.
        """
        xt, s, t = _same_type(xt, s, t)
        x0 = convert(prediction, "x0", self, xt, t)
        mean = self.posterior(x0, xt, s, t).mean
        first = s == 0
        lower, upper = jnp.where(first, t, s), jnp.where(first, jnp.minimum(2 * t, 1.0), t)
        sigma_0_squared = jnp.where(first, self.schedule.sigma(jnp.zeros_like(t)) ** 2, 0.0)
        small = broadcast_to(jnp.maximum(self._posterior_variance(lower, upper), sigma_0_squared), xt)
        large = broadcast_to(self._forward_variance(s, t), xt)
        if variance not in ("posterior", "forward", "learned", "shifted"):
            raise InputError(f"variance must be 'posterior', 'forward', 'learned' or 'shifted', not {variance!r}")
        if variance in ("posterior", "forward"):
            return Normal(mean, small if variance == "posterior" else large)
        if prediction.log_var is None:
            raise InputError(f"variance={variance!r} needs a prediction with log_var: predict with learned_variance")
        shift = jnp.asarray(prediction.log_var, xt.dtype)
        if variance == "learned":
            return Normal(mean, jnp.exp(shift * jnp.log(large) + (1 - shift) * jnp.log(small)))
        return Normal(mean, large / (large + (1 - large) * jnp.exp(-shift)))

    def _log_snr_change(self, s: Array, t: Array) -> Array:
        """λ_t - λ_s. In a pair s = 0 is free of noise, whatever sigma(0) is."""
        return jnp.where(s == 0, -jnp.inf, self.schedule.log_snr(t) - self.schedule.log_snr(s))

    def _r(self, s: Array, t: Array) -> Array:
        return -jnp.expm1(self._log_snr_change(s, t))

    def _forward_variance(self, s: Array, t: Array) -> Array:
        return self._r(s, t) * self.schedule.sigma(t) ** 2

    def _posterior_variance(self, s: Array, t: Array) -> Array:
        return self._r(s, t) * jnp.where(s == 0, 0.0, self.schedule.sigma(s) ** 2)


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
        # q(x_t | x_s) with the roles of the two exchanged: the probability of the x_t seen, for either value of x_s.
        rate = broadcast_to(self.schedule.integrated_rate(t) - self.schedule.integrated_rate(s), xt)
        k, drawn = jnp.exp(-rate), -jnp.expm1(-rate)
        anew = drawn * (r * xt + (1 - r) * (1 - xt))
        evidence = jnp.log(k * xt + anew) - jnp.log(k * (1 - xt) + anew)
        return Bernoulli(self.marginal(jnp.asarray(x0, xt.dtype), s).logits + evidence)

    def reverse(
        self,
        prediction: Prediction,
        xt: Float[Array, "*shape"],
        s: ArrayLike,
        t: ArrayLike,
        variance: Variance = "posterior",
    ) -> Bernoulli:
        """p(x_s | x_t), the mixture over the predicted x_0; at s = 0 the prediction itself.

        The prediction is of kind "logits" (log-odds of x_0 = 1) or "x0" (its probability). There is no variance to
        choose: any but "posterior" is an error, as is another kind.
        """
        if prediction.kind not in ("logits", "x0"):
            raise InputError(f"a binomial process needs a prediction of kind 'logits' or 'x0', not {prediction.kind!r}")
        if variance != "posterior":
            raise InputError(f"a binomial process has no variance {variance!r}: leave it at 'posterior'")
        xt, s, t = _same_type(xt, s, t)
        value = jnp.asarray(prediction.value, xt.dtype)
        logits = value if prediction.kind == "logits" else jnp.log(value) - jnp.log1p(-value)
        first = s == 0
        # At s = 0 the posteriors are point masses with infinite log-odds: take them elsewhere, and not use them.
        inner = jnp.where(first, 0.5 * t, s)
        ones = jnp.ones_like(xt)
        if_one, if_zero = self.posterior(ones, xt, inner, t).logits, self.posterior(0 * ones, xt, inner, t).logits
        yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        on = jnp.logaddexp(yes + jax.nn.log_sigmoid(if_one), no + jax.nn.log_sigmoid(if_zero))
        off = jnp.logaddexp(yes + jax.nn.log_sigmoid(-if_one), no + jax.nn.log_sigmoid(-if_zero))
        return Bernoulli(jnp.where(broadcast_to(first, xt), logits, on - off))

    def _noised(self, x: Array, rate: Array) -> Bernoulli:
        rate, r = broadcast_to(rate, x), jnp.asarray(self.prob, x.dtype)
        k, drawn = jnp.exp(-rate), -jnp.expm1(-rate)
        return Bernoulli(log(k * x + drawn * r) - log(k * (1 - x) + drawn * (1 - r)))


def binomial(schedule: VariancePreserving | ArrayLike, prior: float = 0.5) -> Binomial:
    """The binomial process of a schedule, or of betas, the probabilities with which a step draws a bit anew.

    The last beta may be 1; the paper's 1/(T - t + 1) is `1 / jnp.arange(T, 0, -1)`, with alpha_bar_t = 1 - t/T.

    Raises:
        InputError: if the prior probability is not in (0, 1), or a beta not in (0, 1).
    """
    if not isinstance(prior, jax.core.Tracer) and not 0 < float(prior) < 1:
        raise InputError(f"the prior probability must be in (0, 1), not {prior}")
    if not isinstance(schedule, VariancePreserving):
        schedule = from_betas(schedule, end=True)
    return Binomial(schedule, as_float(prior))


def _same_type(x: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array, Array]:
    """x of its floating type, and the times of the same."""
    x = as_float(x)
    return x, jnp.asarray(s, x.dtype), jnp.asarray(t, x.dtype)
