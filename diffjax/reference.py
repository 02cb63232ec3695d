"""Densities whose noised marginals, scores and denoisers are known: what everything else is tested against.

If x_0 has density Σ_k w_k N(m_k, C_k), x_t = alpha x_0 + sigma eps has Σ_k w_k N(alpha m_k, alpha² C_k + sigma² I), and
eps* = E[eps | x_t] = -sigma ∇ log p_t(x_t) is the best possible prediction.

Bits x_0 ~ Σ_k w_k Π_i B(p_ki) stay such a mixture under the binomial process, too. Either mixture also stays one when
multiplied by the likelihood of an observation, r(x) = Π_i exp(-½ precision_i (y_i - x_i)²), with precisions from 0 to
+inf. x_t is itself an observation of x_0, so E[r(x_0) | x_t] follows from two observations.

Functions of a real x return the common type of x and the parameters (`dtypes`). All others return the parameters' type.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax.distributions import Bernoulli
from diffjax.dtypes import alike
from diffjax.linear_algebra import einsum, matmul
from diffjax.predictions import Kind, Predict, Prediction, pair, unpair
from diffjax.processes import Binomial
from diffjax.schedules import Schedule
from diffjax.special import LOG_2PI


class GaussianMixture(NamedTuple):
    """Σ_k weights[k] N(means[k], covs[k]): weights (K,) sum to 1, means (K, D), covs (K, D, D) positive definite."""

    weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    covs: Float[Array, "K D D"]

    @property
    def mean(self) -> Float[Array, " D"]:
        weights, means, _ = alike(*self)
        return matmul(weights, means)

    @property
    def cov(self) -> Float[Array, "D D"]:
        weights, means, covs = alike(*self)
        centred = means - self.mean
        return einsum("k,kij->ij", weights, covs + centred[:, :, None] * centred[:, None, :])

    def log_prob(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """log p(x) in nats."""
        x, weights, means, covs = alike(x, *self)
        chol = jnp.linalg.cholesky(covs)
        centred = x[..., None, :] - means
        white = jax.scipy.linalg.solve_triangular(
            jnp.broadcast_to(chol, (*centred.shape[:-1], *chol.shape[-2:])), centred[..., None], lower=True
        )[..., 0]
        log_det = jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)).sum(-1)
        log_normal = -0.5 * (white**2).sum(-1) - log_det - 0.5 * x.shape[-1] * LOG_2PI
        return jax.nn.logsumexp(log_normal + jnp.log(weights), axis=-1)

    def score(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """∇ log p(x)."""
        x, *params = alike(x, *self)
        return jax.grad(lambda x: GaussianMixture(*params).log_prob(x).sum())(x)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n D"]:
        weights, means, covs = alike(*self)
        which_key, noise_key = jax.random.split(key)
        which = jax.random.categorical(which_key, jnp.log(weights), shape=(n,))
        noise = jax.random.normal(noise_key, (n, means.shape[-1]), means.dtype)
        return means[which] + einsum("nij,nj->ni", jnp.linalg.cholesky(covs)[which], noise)

    def at(self, alpha: ArrayLike, sigma: ArrayLike) -> "GaussianMixture":
        """The density of alpha x + sigma eps, for scalar alpha and sigma."""
        weights, means, covs = alike(*self)
        alpha, sigma = jnp.asarray(alpha, means.dtype), jnp.asarray(sigma, means.dtype)
        noise = sigma**2 * jnp.eye(means.shape[-1], dtype=means.dtype)
        return GaussianMixture(weights, alpha * means, alpha**2 * covs + noise)

    def predict(self, schedule: Schedule, kind: Kind = "eps") -> Predict:
        """The exact Predict of a kind: eps = -sigma ∇ log p_t(x_t), x0 = E[x_0 | x_t], or what follows from these.

        t is () or (batch,). x0, v and velocity come from E[x_0 | x_t], which exists where alpha = 0, too.
        """
        computed: Kind = "x0" if kind in ("x0", "v", "velocity") else "eps"

        def eps(x: Array, alpha: Array, sigma: Array) -> Array:
            score = self.at(alpha, sigma).score(x)
            return -sigma.astype(score.dtype) * score

        def x0(x: Array, alpha: Array, sigma: Array) -> Array:
            x, weights, means, covs = alike(x, *self)
            alpha, sigma = jnp.asarray(alpha, x.dtype), jnp.asarray(sigma, x.dtype)
            noised = self.at(alpha, sigma)
            each = jax.vmap(lambda m, c: GaussianMixture(jnp.ones(1, x.dtype), m[None], c[None]).log_prob(x))
            share = jax.nn.softmax(jnp.log(weights) + each(noised.means, noised.covs))
            white = jnp.linalg.solve(noised.covs, (x - noised.means)[:, :, None])
            return einsum("k,ki->i", share, means + alpha * matmul(covs, white)[:, :, 0])

        def predict(xt: Array, t: Array) -> Prediction:
            def one(x: Array, t: Array) -> Array:
                return (x0 if computed == "x0" else eps)(x, schedule.alpha(t), schedule.sigma(t))

            found = Prediction(jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1])), computed)
            if kind == computed:
                return found
            return Prediction(unpair(kind, schedule, *pair(found, schedule, xt, t), t), kind)

        return predict

    def posterior(self, y: Float[Array, " D"], precision: Float[Array, " D"]) -> "GaussianMixture":
        """p(x) r(x)/Z. Where a precision is infinite, x is known and the covariances are singular. `mean`, `cov`,
        `predict` and `at` with sigma > 0 are then still valid, but there is no density and no sample."""
        _, means, covs = alike(*self)
        known, noise, chol, white, log_joint = self._observe(y, precision)
        half = jax.scipy.linalg.solve_triangular(chol, jnp.where(known[:, None], covs, 0.0), lower=True)
        means = means + einsum("kij,ki->kj", half, white)
        # Joseph's form, with gain (observed, D). Where precision is high, C minus its explained part would be only the
        # rounding of C.
        gain = jax.scipy.linalg.solve_triangular(chol, half, lower=True, trans="T")
        left = jnp.eye(len(noise), dtype=noise.dtype) - gain.mT
        covs = einsum("kij,kjl,kml->kim", left, covs, left) + einsum("kij,i,kil->kjl", gain, noise, gain)
        return GaussianMixture(jax.nn.softmax(log_joint), means, covs)

    def log_evidence(self, y: Float[Array, " D"], precision: Float[Array, " D"]) -> Float[Array, ""]:
        """log p(y) of the observed entries, y ~ N(x, 1/precision): log E[r(x)] up to a constant of the precisions."""
        return jax.nn.logsumexp(self._observe(y, precision)[-1])

    def linear_posterior(
        self, matrix: Float[Array, "M D"], y: Float[Array, " M"], noise: ArrayLike
    ) -> "GaussianMixture":
        """p(x | y), y = A x + noise · N(0, I). For one Gaussian N(m, C), the mean and the covariance are

        m + C Aᵀ (A C Aᵀ + noise² I)⁻¹ (y - A m)   and   C - C Aᵀ (A C Aᵀ + noise² I)⁻¹ A C.
        """
        weights, means, covs, a, y = alike(*self, matrix, y)
        seen = self.measured(a, noise)
        across = einsum("mi,kij->kmj", a, covs)
        gain = jnp.swapaxes(jnp.linalg.solve(seen.covs, across), 1, 2)
        means = means + einsum("kdm,km->kd", gain, y - seen.means)
        covs = covs - matmul(gain, across)
        one = jnp.ones(1, means.dtype)
        each = jax.vmap(lambda mean, cov: GaussianMixture(one, mean[None], cov[None]).log_prob(y))
        log_joint = each(seen.means, seen.covs) + jnp.log(weights)
        return GaussianMixture(jax.nn.softmax(log_joint), means, covs)

    def measured(self, matrix: Float[Array, "M D"], noise: ArrayLike) -> "GaussianMixture":
        """The law of y = A x + noise · N(0, I): its `log_prob` is the log-evidence of y."""
        weights, means, covs, a = alike(*self, matrix)
        own = jnp.asarray(noise, a.dtype) ** 2 * jnp.eye(len(a), dtype=a.dtype)
        return GaussianMixture(weights, matmul(means, a.T), einsum("mi,kij,nj->kmn", a, covs, a) + own)

    def log_expected(self, schedule: Schedule, y: Array, precision: Array) -> Callable[[Array, Array], Array]:
        """log_r(x_t (batch, D), t () or (batch,)) = log E[r(x_0) | x_t], up to a constant, for t > 0."""

        def one(x: Array, t: Array) -> Array:
            x, *params = alike(x, *self)
            alpha, sigma = (jnp.asarray(a, x.dtype) for a in (schedule.alpha(t), schedule.sigma(t)))
            return (
                GaussianMixture(*params)
                .posterior(x / alpha, jnp.full_like(x, (alpha / sigma) ** 2))
                .log_evidence(y, precision)
            )

        return lambda xt, t: jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1]))

    def _observe(self, y: Array, precision: Array) -> tuple[Array, Array, Array, Array, Array]:
        weights, means, covs = alike(*self)
        y, precision = jnp.asarray(y, means.dtype), jnp.asarray(precision, means.dtype)
        known = precision > 0
        # An entry that was not observed is an independent N(0, 1) seen at 0.
        noise = 1.0 / jnp.where(known, precision, 1.0)
        chol = jnp.linalg.cholesky(jnp.where(known[:, None] & known, covs, 0.0) + jnp.diag(noise))
        residual = jnp.where(known, y - means, 0.0)
        white = jax.scipy.linalg.solve_triangular(chol, residual[..., None], lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)).sum(-1)
        log_normal = -0.5 * (white**2).sum(-1) - log_det - 0.5 * LOG_2PI * known.sum().astype(white.dtype)
        return known, noise, chol, white, log_normal + jnp.log(weights)


class BernoulliMixture(NamedTuple):
    """Σ_k weights[k] Π_i B(x_i; probs[k, i]) on bits: weights (K,) sum to 1, probs (K, D) in [0, 1], ends included."""

    weights: Float[Array, " K"]
    probs: Float[Array, "K D"]

    def log_prob(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """log P(x) in nats. It is -inf where no component has mass, and where x is not made of bits."""
        x, weights, probs = alike(x, *self)
        each = jnp.where(x[..., None, :] == 1, jnp.log(probs), jnp.log1p(-probs)).sum(-1)
        bits = ((x == 0) | (x == 1)).all(-1)
        return jnp.where(bits, jax.nn.logsumexp(each + jnp.log(weights), axis=-1), -jnp.inf)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n D"]:
        weights, probs = alike(*self)
        which_key, bit_key = jax.random.split(key)
        probs = probs[jax.random.categorical(which_key, jnp.log(weights), shape=(n,))]
        return Bernoulli(jnp.log(probs) - jnp.log1p(-probs)).sample(bit_key)

    def at(self, process: Binomial, t: ArrayLike) -> "BernoulliMixture":
        """The law of x_t, for a scalar t."""
        weights, probs = alike(*self)
        rate, prior = (jnp.asarray(a, probs.dtype) for a in (process.schedule.integrated_rate(t), process.prob))
        return BernoulliMixture(weights, jnp.exp(-rate) * probs - jnp.expm1(-rate) * prior)

    def predict(self, process: Binomial) -> Predict:
        """The exact Predict, of kind logits: log-odds of x_0,i = 1 given x_t, for t > 0. t is () or (batch,)."""

        def one(x: Array, t: Array) -> Array:
            log_joint, log_on, log_off = self._observe(_log_odds_of(process, x, t))
            total = log_joint[:, None]
            return jax.nn.logsumexp(total + log_on, axis=0) - jax.nn.logsumexp(total + log_off, axis=0)

        def predict(xt: Array, t: Array) -> Prediction:
            return Prediction(jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1])), "logits")

        return predict

    def posterior(self, y: Float[Array, " D"], precision: Float[Array, " D"]) -> "BernoulliMixture":
        """P(x) r(x)/Z."""
        return self._posterior(_log_odds(y, precision))

    def log_evidence(self, y: Float[Array, " D"], precision: Float[Array, " D"]) -> Float[Array, ""]:
        """log E[r(x)]."""
        return jax.nn.logsumexp(self._observe(_log_odds(y, precision))[0])

    def log_expected(self, process: Binomial, y: Array, precision: Array) -> Callable[[Array, Array], Array]:
        """log_r(x_t (batch, D), t () or (batch,)) = log E[r(x_0) | x_t]."""

        def one(x: Array, t: Array) -> Array:
            return self._posterior(_log_odds_of(process, x, t)).log_evidence(y, precision)

        return lambda xt, t: jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1]))

    def _posterior(self, log_odds: Array) -> "BernoulliMixture":
        log_joint, log_on, _ = self._observe(log_odds)
        return BernoulliMixture(jax.nn.softmax(log_joint), jnp.exp(log_on))

    def _observe(self, log_odds: Array) -> tuple[Array, Array, Array]:
        """log of w_k E_k[r], (K,), and log-probabilities of 1 and 0 given the observation, (K, D), within each k."""
        weights, probs = alike(*self)
        log_odds = jnp.asarray(log_odds, probs.dtype)
        log_on = jnp.log(probs) + jnp.minimum(log_odds, 0.0)
        log_off = jnp.log1p(-probs) + jnp.minimum(-log_odds, 0.0)
        total = jnp.logaddexp(log_on, log_off)
        scale = jnp.where(jnp.isneginf(total), 0.0, total)  # a component that cannot have been seen has no share
        return total.sum(-1) + jnp.log(weights), log_on - scale, log_off - scale


def _log_odds(y: Array, precision: Array) -> Array:
    """log r(1)/r(0)."""
    y, precision = alike(y, precision)
    return jnp.where(precision > 0, precision * (y - 0.5), 0.0)


def _log_odds_of(process: Binomial, xt: Array, t: ArrayLike) -> Array:
    """log q(x_t | x_0 = 1)/q(x_t | x_0 = 0)."""
    ones = jnp.ones_like(xt)
    return process.marginal(ones, t).log_prob(xt) - process.marginal(0 * ones, t).log_prob(xt)
