"""Row-stochastic matrices M of jumps between classes, and exp(rate (M - I)).

gaussian_matrix  M_ij ∝ exp(-(i - j)²/(2 width²)) for i ≠ j, M_ii the rest: symmetric   (Austin et al. 2021, A.2.3)
metropolis       M_ij = P_ij min(1, π_j/π_i) of a symmetric P: reversible, with stationary law π
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import linear_algebra
from diffjax.errors import InputError

HALVINGS = 10  # exp(rate (M - I)) is a power 2^10 of one whose rate is at most 1
TERMS = 14  # of the series of that one: 1/14! is below the rounding of float32


def gaussian_matrix(num_classes: int, width: float = 1.0) -> Float[np.ndarray, "classes classes"]:
    """Jumps to near classes: the discretised Gaussian of D3PM, doubly stochastic, so its stationary law is uniform.

    Args:
        width: the standard deviation of a jump, in classes.

    Raises:
        InputError: if the width is not positive.
    """
    if not width > 0:
        raise InputError(f"width={width} must be positive: the standard deviation of a jump, in classes")
    distance = np.arange(num_classes)[:, None] - np.arange(num_classes)
    matrix = np.exp(-0.5 * (distance / width) ** 2)
    # The sum over all distances, not over those that end in a class: so the matrix stays symmetric.
    far = np.arange(-num_classes + 1, num_classes)
    matrix /= np.exp(-0.5 * (far / width) ** 2).sum()
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, 1.0 - matrix.sum(1))
    return matrix


def metropolis(matrix: ArrayLike, law: ArrayLike) -> Float[np.ndarray, "classes classes"]:
    """The jumps of a symmetric matrix, each accepted so that the stationary law is `law` (Metropolis et al. 1953).

    Raises:
        InputError: if the matrix is not symmetric, or the law not positive and of its size.
    """
    p, law = np.asarray(matrix, np.float64), np.asarray(law, np.float64)
    if p.ndim != 2 or p.shape != p.T.shape or not np.allclose(p, p.T):
        raise InputError("metropolis needs a symmetric matrix of jumps, such as gaussian_matrix(num_classes)")
    if law.shape != p.shape[:1] or not (law > 0).all():
        raise InputError(f"law must be {len(p)} positive numbers, one for each class, not {law}")
    found = p * np.minimum(1.0, law / law[:, None])
    np.fill_diagonal(found, 0.0)
    np.fill_diagonal(found, 1.0 - found.sum(1))
    return found


def stationary(matrix: Float[np.ndarray, "classes classes"]) -> Float[np.ndarray, " classes"]:
    """The one law π with π M = π.

    Raises:
        InputError: if the matrix is not row-stochastic, or has several such laws.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not (matrix >= 0).all():
        raise InputError(f"a matrix of jumps must be square with entries of at least 0, not of shape {matrix.shape}")
    if not np.allclose(matrix.sum(1), 1.0, atol=1e-5):
        raise InputError(f"each row of a matrix of jumps must sum to 1, not {matrix.sum(1)}: divide the rows by these")
    left, sizes, _ = np.linalg.svd(matrix - np.eye(len(matrix)))
    if len(sizes) > 1 and sizes[-2] < 1e-7:
        raise InputError("a matrix of jumps must have one stationary law, but some of its classes never meet")
    law = np.abs(left[:, -1])
    return law / law.sum()


def exponential(
    matrix: Float[Array, "classes classes"], rate: Float[Array, "..."]
) -> Float[Array, "... classes classes"]:
    """exp(rate (M - I)), the law of a chain that jumps by M at unit rate. Only numbers of one sign are added.

    So small entries are exact to a few roundings, where an eigen-decomposition would leave the rounding of 1. Rates
    above 2^10 count as 2^10: they are the stationary law.
    """
    size, dtype = len(matrix), rate.dtype
    a = jnp.minimum(rate, 2.0**HALVINGS)[..., None, None] * 2.0**-HALVINGS
    power = term = jnp.broadcast_to(jnp.eye(size, dtype=dtype), (*rate.shape, size, size))
    for j in range(1, TERMS):
        term = linear_algebra.matmul(term, matrix) * (a / j)
        power = power + term
    power = power * jnp.exp(-a)

    def square(_: int, q: Array) -> Array:
        q = linear_algebra.matmul(q, q)
        return q / q.sum(-1, keepdims=True)  # else the rounding of the sum would double in each step

    return jax.lax.fori_loop(0, HALVINGS, square, power)
