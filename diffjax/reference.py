"""Densities whose noised marginals, scores and denoisers are known: what everything else is tested against.

If x_0 has density Σ_k w_k N(m_k, C_k), x_t = alpha x_0 + sigma eps has Σ_k w_k N(alpha m_k, alpha² C_k + sigma² I), and
eps* = E[eps | x_t] = -sigma ∇ log p_t(x_t) is the best possible prediction.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax.distributions import LOG_2PI
from diffjax.predictions import Predict, Prediction
from diffjax.schedules import Schedule


class GaussianMixture(NamedTuple):
    """Σ_k weights[k] N(means[k], covs[k]): weights (K,) sum to 1, means (K, D), covs (K, D, D) positive definite."""

    weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    covs: Float[Array, "K D D"]

    def log_prob(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """log p(x) in nats."""
        chol = jnp.linalg.cholesky(self.covs)
        centred = x[..., None, :] - self.means
        white = jax.scipy.linalg.solve_triangular(
            jnp.broadcast_to(chol, (*centred.shape[:-1], *chol.shape[-2:])), centred[..., None], lower=True
        )[..., 0]
        log_det = jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)).sum(-1)
        log_normal = -0.5 * (white**2).sum(-1) - log_det - 0.5 * x.shape[-1] * LOG_2PI
        return jax.nn.logsumexp(log_normal + jnp.log(self.weights), axis=-1)

    def score(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """∇ log p(x)."""
        return jax.grad(lambda x: self.log_prob(x).sum())(x)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n D"]:
        which_key, noise_key = jax.random.split(key)
        which = jax.random.categorical(which_key, jnp.log(self.weights), shape=(n,))
        noise = jax.random.normal(noise_key, (n, self.means.shape[-1]), self.means.dtype)
        return self.means[which] + jnp.einsum("nij,nj->ni", jnp.linalg.cholesky(self.covs)[which], noise)

    def at(self, alpha: ArrayLike, sigma: ArrayLike) -> "GaussianMixture":
        """The density of alpha x + sigma eps, for scalar alpha and sigma."""
        alpha, sigma = jnp.asarray(alpha), jnp.asarray(sigma)
        noise = sigma**2 * jnp.eye(self.means.shape[-1])
        return GaussianMixture(self.weights, alpha * self.means, alpha**2 * self.covs + noise)

    def predict(self, schedule: Schedule) -> Predict:
        """The exact Predict, of kind eps: -sigma ∇ log p_t(x_t). t is () or (batch,)."""

        def one(x: Array, t: Array) -> Array:
            sigma = schedule.sigma(t)
            return -sigma * self.at(schedule.alpha(t), sigma).score(x)

        def predict(xt: Array, t: Array) -> Prediction:
            return Prediction(jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1])), "eps")

        return predict
