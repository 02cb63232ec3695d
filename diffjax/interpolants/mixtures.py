"""Interpolants between two mixtures of Gaussians: the density of x_t, velocity, noise and end point in closed form.

x_0 is from component i, N(m_i, C_i), and x_1 from component j, N(μ_j, S_j), with the joint probability w_ij. Within a
pair of components they are independent. Then x_t is the mixture of N(m_t, V_t) with the weights w_ij, where

    m_t = (1 - t) m_i + t μ_j,   V_t = (1 - t)² C_i + t² S_j + γ² I,
    b(x, t)      = Σ_ij r_ij(x) [m_t' + ½ V_t' V_t⁻¹ (x - m_t)]
    E[x_0 | x_t] = Σ_ij r_ij(x) [m_i + (1 - t) C_i V_t⁻¹ (x - m_t)]

r_ij are the posterior weights at x. The regressions of `linear` and `bridges` are tested against these formulas.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.dtypes import alike
from diffjax.interpolants.linear import Interpolant
from diffjax.linear_algebra import einsum
from diffjax.predictions import Kind, Predict, Prediction
from diffjax.reference import GaussianMixture


class MixtureInterpolant(NamedTuple):
    """x0 has K components and x1 has L, all of dimension D.

    weights: w (K, L), of the pairs of components. The rows sum to the weights of x0, the columns to those of x1. None
        is the independent coupling.
    """

    x0: GaussianMixture
    x1: GaussianMixture
    between: Interpolant
    weights: Float[Array, "K L"] | None = None

    def at(self, t: ArrayLike) -> GaussianMixture:
        """The distribution of x_t, with K·L components, for a scalar t."""
        weights, means, covs, _, _, _ = self._pairs(t)
        return GaussianMixture(weights, means, covs)

    def velocity(self) -> Predict:
        """b, of kind "velocity". t is () or (batch,)."""

        def one(x: Array, t: Array) -> Array:
            weights, means, covs, mean_rates, cov_rates, _ = self._pairs(t)
            shares, white = _posterior(x, weights, means, covs)
            return einsum("k,ki->i", shares, mean_rates + 0.5 * einsum("kij,kj->ki", cov_rates, white))

        return _predict("velocity", one)

    def noise(self) -> Predict:
        """η = -γ ∇log p_t, of kind "eps". t is () or (batch,)."""

        def one(x: Array, t: Array) -> Array:
            weights, means, covs, _, _, _ = self._pairs(t)
            shares, white = _posterior(x, weights, means, covs)
            return self.between.gamma(t) * einsum("k,ki->i", shares, white)

        return _predict("eps", one)

    def end(self) -> Predict:
        """E[x_0 | x_t], of kind "x0". t is () or (batch,)."""

        def one(x: Array, t: Array) -> Array:
            weights, means, covs, _, _, (ends, end_covs) = self._pairs(t)
            shares, white = _posterior(x, weights, means, covs)
            return einsum("k,ki->i", shares, ends + (1 - t) * einsum("kij,kj->ki", end_covs, white))

        return _predict("x0", one)

    def _pairs(self, t: ArrayLike) -> tuple[Array, Array, Array, Array, Array, tuple[Array, Array]]:
        """For the K·L pairs: weights; means and covariances at t; their derivatives; means and covariances of x_0."""
        weights, m, c, others, mu, s = alike(*self.x0, *self.x1)
        t = jnp.asarray(t, m.dtype)
        joint = weights[:, None] * others if self.weights is None else jnp.asarray(self.weights, m.dtype)
        num, dim = joint.size, m.shape[-1]
        m, mu = (jnp.broadcast_to(x, (*joint.shape, dim)).reshape(num, dim) for x in (m[:, None], mu))
        c, s = (jnp.broadcast_to(x, (*joint.shape, dim, dim)).reshape(num, dim, dim) for x in (c[:, None], s))
        eye = jnp.eye(dim, dtype=m.dtype)
        covs = (1 - t) ** 2 * c + t**2 * s + self.between.gamma(t) ** 2 * eye
        noise_rate = 2.0 * jnp.asarray(self.between.scale, m.dtype) ** 2 * (1 - 2 * t)  # of γ²
        cov_rates = -2 * (1 - t) * c + 2 * t * s + noise_rate * eye
        return joint.reshape(-1), (1 - t) * m + t * mu, covs, mu - m, cov_rates, (m, c)


def _posterior(x: Array, weights: Array, means: Array, covs: Array) -> tuple[Array, Array]:
    """r (K·L,) at x (D,), and V⁻¹ (x - m) (K·L, D)."""
    one = jnp.ones(1, x.dtype)
    each = jax.vmap(lambda mean, cov: GaussianMixture(one, mean[None], cov[None]).log_prob(x))(means, covs)
    white = jnp.linalg.solve(covs, (x - means)[:, :, None])[:, :, 0]
    return jax.nn.softmax(jnp.log(weights) + each), white


def _predict(kind: Kind, one: Callable[[Array, Array], Array]) -> Predict:
    return lambda xt, t: Prediction(jax.vmap(one)(xt, jnp.broadcast_to(t, xt.shape[:1])), kind)
