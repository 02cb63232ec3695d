"""The binomial process of bits. See `diffjax.processes` for its formulas."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.distributions import Bernoulli
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Prediction
from diffjax.processes.base import Variance, same_type
from diffjax.schedules import VariancePreserving, broadcast_to, from_betas, log


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
        xs, s, t = same_type(xs, s, t)
        return self._noised(xs, self.schedule.integrated_rate(t) - self.schedule.integrated_rate(s))

    def posterior(
        self, x0: Float[Array, "*shape"], xt: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike
    ) -> Bernoulli:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        xt, s, t = same_type(xt, s, t)
        r = jnp.asarray(self.prob, xt.dtype)
        k, one_minus_k = kept(broadcast_to(self.schedule.integrated_rate(t) - self.schedule.integrated_rate(s), xt))
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
        xt, s, t = same_type(xt, s, t)
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
        k, one_minus_k = kept(broadcast_to(rate, x))
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


def kept(rate: Array) -> tuple[Array, Array]:
    """k and 1 - k."""
    return jnp.exp(-rate), -jnp.expm1(-rate)


def _logits(prediction: Prediction, variance: Variance, xt: Array) -> Array:
    """The log-odds of x_0 = 1."""
    if prediction.kind not in ("logits", "x0"):
        raise InputError(f"a binomial process needs a prediction of kind 'logits' or 'x0', not {prediction.kind!r}")
    if variance != "posterior":
        raise InputError(f"a binomial process has no variance {variance!r}: leave it at 'posterior'")
    value = jnp.asarray(prediction.value, xt.dtype)
    return value if prediction.kind == "logits" else jnp.log(value) - jnp.log1p(-value)
