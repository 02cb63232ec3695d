"""The bound of a diffusion in continuous time, in nats (Kingma et al. 2021, eq. 8, 11 and 17), for data of k levels.

    -log P(x) ≤ KL(q(z_1 | x) ‖ N(0, I)) + E -log P(x | z_0) + ½ ∫ gamma'(t) E ‖eps - ê(z_t, gamma(t))‖² dt

    z_t = alpha x + sigma eps,   alpha² = sigmoid(-gamma),   sigma² = sigmoid(gamma),   gamma = -log SNR
    P(x | z_0) = Π_i softmax_v log N(z_0i; alpha_0 v, sigma_0²) at v = x_i,   v over the k levels

It is the limit of `bounds.diffusion` for infinitely many steps. For a short step, KL(q(z_s | z_t, x) ‖ p(z_s | z_t)) is
½ (SNR(s) - SNR(t)) ‖x - x̂‖², where dSNR = -SNR dgamma and SNR ‖x - x̂‖² = ‖eps - ê‖². The change of variable from t to
gamma shows that the integral depends only on gamma_0 and gamma_1, if ê is a function of z and gamma (section 5.1).

The decoder P(x | z_0) has no parameters: it follows from a uniform prior over levels and the noise left at t = 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.distributions import Normal
from diffjax.dtypes import as_float
from diffjax.learned_schedule import alpha_sigma
from diffjax.schedules import broadcast_to


def diffusion_cost(
    predict_eps: Callable[[Array, Array], Array],
    x0: Float[Array, "batch *event"],
    eps: Float[Array, "batch *event"],
    gamma: Float[Array, " batch"],
    rate: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """½ gamma' ‖eps - ê‖² at one time of each example. Its mean over times uniform on [0, 1] is the integral.

    Args:
        predict_eps: (z (batch, *event), gamma (batch,)) -> ê.
        gamma, rate: gamma(t) and gamma'(t).
    """
    x0 = as_float(x0)
    eps, gamma, rate = (jnp.asarray(value, x0.dtype) for value in (eps, gamma, rate))
    error = eps - predict_eps(noised(x0, eps, gamma), gamma)
    return 0.5 * rate * _event_sum(error**2)


def prior_cost(x0: Float[Array, "batch *event"], gamma_1: ArrayLike) -> Float[Array, " batch"]:
    """KL(q(z_1 | x) ‖ N(0, I))."""
    x0 = as_float(x0)
    alpha, sigma = _at(gamma_1, x0)
    return _event_sum(Normal(alpha * x0, sigma**2).kl(Normal(jnp.zeros_like(x0), jnp.ones_like(x0))))


def reconstruction_cost(
    x0: Float[Array, "batch *event"], z0: Float[Array, "batch *event"], gamma_0: ArrayLike, num_levels: int
) -> Float[Array, " batch"]:
    """-log P(x | z_0) at one z_0; x0 lies on `num_levels` equidistant levels from -1 to 1.

    gamma_0 is () or (batch,).
    """
    x0 = as_float(x0)
    z0 = jnp.asarray(z0, x0.dtype)
    alpha, sigma = _at(gamma_0, x0)
    levels = jnp.linspace(-1.0, 1.0, num_levels, dtype=x0.dtype)

    def log_density(x: Array, z0: Array, alpha: Array, sigma: Array) -> Array:
        return -0.5 * ((z0 - alpha * x) / sigma) ** 2

    every = log_density(levels, z0[..., None], alpha[..., None], sigma[..., None])
    return _event_sum(jax.nn.logsumexp(every, axis=-1) - log_density(x0, z0, alpha, sigma))


def noised(x0: Array, eps: Array, gamma: ArrayLike) -> Array:
    """z = alpha x + sigma eps; gamma is () or (batch,)."""
    alpha, sigma = _at(gamma, x0)
    return alpha * x0 + sigma * eps


def _at(gamma: ArrayLike, x: Array) -> tuple[Array, Array]:
    """alpha and sigma, which broadcast against x and have its floating type."""
    return alpha_sigma(broadcast_to(gamma, x))


def _event_sum(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).sum(1)
