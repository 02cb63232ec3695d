"""Objectives of log-weights with E w = p(x), to ascend: L_K = E log (1/K) Σ_k w_k (Burda et al. 2016).

L_1 is the ELBO, and L_1 ≤ L_2 ≤ ... ≤ log p(x). With w = p(x, z)/q_φ(z) and z = g(φ, ε), the gradient in φ has the term
-∂ log q_φ(z)/∂φ at fixed z. Its mean is 0 at K = 1, but it has variance even if q is the posterior. Two estimators do
without it:

    sticking the landing     the term is left out: unbiased at K = 1, biased for K > 1 (Roeder et al. 2017)
    doubly reparameterised   Σ_k w̃_k² ∂log w_k/∂z ∂z/∂φ, w̃ the normalised weights: unbiased at every K
                             (Tucker et al. 2019, eq. 8)
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.bounds import importance_weighted
from diffjax.errors import InputError

Estimator = Literal["reparameterized", "sticking_the_landing", "doubly_reparameterized"]
LogWeights = Callable[[Any, Any, Any], Array]


def objective(
    log_weights: LogWeights, theta: Any, phi: Any, estimator: Estimator = "reparameterized"
) -> Float[Array, "*batch"]:
    """L_K of one set of draws, in nats. `jax.grad` of its mean in (theta, phi) is the estimator.

    Args:
        log_weights: (theta, phi, density_phi) -> (K, *batch), log-weights of draws made with phi. Every log q in them
            uses density_phi: the `densities` of `markov_chain` and `hamiltonian`.
        theta: the parameters that the draws do not depend on: those of the model and of inverse models. Also step
            sizes and masses, which move draws after they are made.
        phi: the parameters of initial distribution, transitions and momenta.

    A weight of 0 has no effect. If all are 0, L_K is -inf and its gradient NaN.

    Raises:
        InputError: on an unknown estimator, or log-weights without an axis of draws.
    """

    def of(theta: Any, phi: Any, density_phi: Any) -> Array:
        log_w = log_weights(theta, phi, density_phi)
        if log_w.ndim == 0:
            raise InputError("log_weights must give (K, *batch), one for each of K draws, not a single number")
        return log_w

    frozen = jax.lax.stop_gradient(phi)
    match estimator:
        case "reparameterized":
            return importance_weighted(of(theta, phi, phi))
        case "sticking_the_landing":
            return importance_weighted(of(theta, phi, frozen))
        case "doubly_reparameterized":
            of_theta = of(theta, frozen, frozen)
            of_phi = of(jax.lax.stop_gradient(theta), phi, frozen)
            weights = jax.lax.stop_gradient(jax.nn.softmax(of_theta, axis=0))
            slopes = weights * _zero(of_theta) + weights**2 * _zero(of_phi)
            return jax.lax.stop_gradient(importance_weighted(of_theta)) + jnp.where(weights > 0, slopes, 0.0).sum(0)
    raise InputError(
        f"estimator must be 'reparameterized', 'sticking_the_landing' or 'doubly_reparameterized', not {estimator!r}"
    )


def _zero(x: Array) -> Array:
    """The value 0, with the derivatives of x."""
    return x - jax.lax.stop_gradient(x)
