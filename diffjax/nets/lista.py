"""Sparse codes of x for a dictionary D: by iteration, or by a network that is a few steps of the iteration.

    z* = argmin ½ ‖x - z D‖² + α ‖z‖₁                                                     (lasso)
    z <- S_θ(x W + z M),   S_θ(v) = sign(v) max(|v| - θ, 0)                               (a step, z = 0 at first)

With W = Dᵀ/λ, M = 1 - D Dᵀ/λ, θ = α/λ, and λ the largest eigenvalue of D Dᵀ, the steps are those of ISTA. FISTA (Beck
and Teboulle 2009) adds momentum. LISTA (Gregor and LeCun 2010, algorithm 3) takes a given number of steps with learned
W, M and θ, so it gets nearer to z* than ISTA does. The rows of D (atoms, dim) are the atoms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import eager
from diffjax.dtypes import alike, as_float


class Weights(NamedTuple):
    """encoder W (dim, atoms), lateral M (atoms, atoms), threshold θ (atoms,)."""

    encoder: Array
    lateral: Array
    threshold: Array


def ista_weights(dictionary: Float[Array, "atoms dim"], sparsity: float) -> Weights:
    """The weights with which `lista` is ISTA. `sparsity` is α."""
    dictionary = as_float(dictionary)
    gram = dictionary @ dictionary.T
    largest = jnp.linalg.eigvalsh(gram)[-1]
    threshold = jnp.full(len(gram), sparsity / largest, gram.dtype)
    return Weights(dictionary.T / largest, jnp.eye(len(gram), dtype=gram.dtype) - gram / largest, threshold)


def lista(weights: Weights, x: Float[Array, "*batch dim"], iterations: int) -> Float[Array, "*batch atoms"]:
    """z after `iterations` steps, at least one."""
    x, encoder, lateral, threshold = alike(x, *weights)
    inputs = x @ encoder
    z = _shrink(inputs, threshold)
    for _ in range(iterations - 1):
        z = _shrink(inputs + z @ lateral, threshold)
    return z


def fista(
    dictionary: Float[Array, "atoms dim"], sparsity: float, x: Float[Array, "*batch dim"], iterations: int
) -> Float[Array, "*batch atoms"]:
    """z after `iterations` steps of FISTA; z* in the limit. `sparsity` is α."""
    x, dictionary = alike(x, dictionary)
    weights = ista_weights(dictionary, sparsity)
    inputs = x @ weights.encoder

    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        z, ahead, t = carry
        new = _shrink(inputs + ahead @ weights.lateral, weights.threshold)
        later = 0.5 * (1 + jnp.sqrt(1 + 4 * t**2))
        return (new, new + (t - 1) / later * (new - z), later), None

    zero = jnp.zeros_like(inputs)
    start = (zero, zero, jnp.ones((), inputs.dtype))
    return eager.once(lambda start: jax.lax.scan(step, start, None, iterations)[0][0], start)


def lasso(
    dictionary: Float[Array, "atoms dim"],
    sparsity: float,
    x: Float[Array, "*batch dim"],
    z: Float[Array, "*batch atoms"],
) -> Float[Array, "*batch"]:
    """½ ‖x - z D‖² + α ‖z‖₁ of each example. `sparsity` is α."""
    x, z, dictionary = alike(x, z, dictionary)
    return 0.5 * ((x - z @ dictionary) ** 2).sum(-1) + sparsity * jnp.abs(z).sum(-1)


def _shrink(v: Array, threshold: Array) -> Array:
    return jnp.sign(v) * jnp.maximum(jnp.abs(v) - threshold, 0)
