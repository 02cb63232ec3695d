"""The Gaussian process of a schedule. See `diffjax.processes` for its formulas."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.distributions import Normal
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Prediction, convert
from diffjax.processes.base import Variance, same_type
from diffjax.schedules import Schedule, broadcast_to


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
        xs, s, t = same_type(xs, s, t)
        alpha_ts = self.schedule.alpha(t) / self._alpha_of_earlier(s)  # alpha_{t|s}
        return Normal(broadcast_to(alpha_ts, xs) * xs, broadcast_to(self._forward_variance(s, t), xs))

    def posterior(self, x0: Float[Array, "*shape"], xt: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Normal:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        xt, s, t = same_type(xt, s, t)
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
        xt, s, t = same_type(xt, s, t)
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


def _log_var(prediction: Prediction, variance: Variance, xt: Array) -> Array:
    if prediction.log_var is None:
        raise InputError(f"variance={variance!r} needs a prediction with log_var: predict with learned_variance")
    return jnp.asarray(prediction.log_var, xt.dtype)
