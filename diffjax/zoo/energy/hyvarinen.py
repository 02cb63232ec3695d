"""The three energies of Hyvärinen (2005, section 3), fitted by score matching, each beside its known answer.

    gaussian  E = ½ (x - m)'K(x - m)                   K is the inverse of the data's covariance
    ica       E = Σ_k G(w_k'x)                         W = A⁻¹ for x = A s, up to order and sign of the rows
    filters   E = Σ_k a_k G(w_k'x), |w_k| = 1, a > 0   more filters than dimensions; of patches, edges of all kinds

with G(s) = 2 log cosh(πs/(2√3)), so that exp(-G) is a logistic density of variance 1, up to a factor. Z depends on W,
and score matching does not need Z.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.zoo.energy.energy_model import Network

SLOPE = np.pi / (2 * np.sqrt(3))


def logistic_energy(s: Array) -> Array:
    """G(s) = 2 log cosh(πs/(2√3)), without overflow."""
    size = jnp.abs(SLOPE * s)
    return 2 * (size + jnp.log1p(jnp.exp(-2 * size)) - jnp.log(2.0))


def gaussian(dim: int) -> Network:
    """Params: mean (dim,), and a matrix whose symmetric part is K (dim, dim)."""

    def energy(params: Any, x: Array) -> Array:
        centred = x - params["mean"]
        return 0.5 * jnp.einsum("ni,ij,nj->n", centred, precision(params), centred)

    return Network(lambda key, x: {"mean": jnp.zeros(dim), "matrix": jnp.eye(dim)}, energy)


def precision(params: Any) -> Array:
    """K (dim, dim) of `gaussian`."""
    return 0.5 * (params["matrix"] + params["matrix"].T)


def ica(dim: int) -> Network:
    """Params: W (dim, dim), from a random orthogonal matrix."""

    def energy(params: Any, x: Array) -> Array:
        return logistic_energy(jnp.einsum("kd,nd->nk", params["weights"], x)).sum(1)

    return Network(lambda key, x: {"weights": jax.nn.initializers.orthogonal()(key, (dim, dim))}, energy)


def filters(dim: int, num: int) -> Network:
    """Params: directions (num, dim), of which the length does not matter, and log a (num,)."""

    def init(key: Array, x: Array) -> dict[str, Array]:
        return {"directions": jax.random.normal(key, (num, dim)), "log_scale": jnp.zeros(num)}

    def energy(params: Any, x: Array) -> Array:
        s = jnp.einsum("kd,nd->nk", directions(params), x)
        return jnp.einsum("nk,k->n", logistic_energy(s), jnp.exp(params["log_scale"]))

    return Network(init, energy)


def directions(params: Any) -> Array:
    """The unit vectors w_k (num, dim) of `filters`."""
    w = params["directions"]
    return w / jnp.linalg.norm(w, axis=1, keepdims=True)


def amari_distance(product: np.ndarray) -> float:
    """How far a matrix (W times A) is from a scaled permutation: 0 if it is one, at most 1 (Amari et al. 1996)."""
    p = np.abs(np.asarray(product, np.float64))
    rows = (p.sum(1) / p.max(1) - 1).sum()
    columns = (p.sum(0) / p.max(0) - 1).sum()
    return float((rows + columns) / (2 * len(p) * (len(p) - 1)))


def precision_error(params: Any, want: np.ndarray) -> dict[str, dict[str, float]]:
    """K beside the precision matrix of the data: the largest difference, and the largest entry."""
    found = np.asarray(precision(params), np.float64)
    return {"precision": {"largest error": float(np.abs(found - want).max()), "largest entry": float(want.max())}}


def unmixing_error(params: Any, matrix: np.ndarray) -> dict[str, dict[str, float]]:
    """W beside A⁻¹: Amari's distance of W A, and how far the largest entry of a row of |W A| is from 1, at most."""
    product = np.asarray(params["weights"], np.float64) @ matrix
    return {
        "unmixing": {
            "Amari distance": amari_distance(product),
            "largest error of a scale": float(np.abs(np.abs(product).max(1) - 1).max()),
        }
    }
