"""How far samples are from a distribution.

energy_distance   2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖, 0 if and only if x and y have one law      (Székely & Rizzo 2013)
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import eager
from diffjax.dtypes import floating
from diffjax.errors import InputError


def energy_distance(x: Float[Array, "n *event"], y: Float[Array, "m *event"]) -> Float[Array, ""]:
    """Unbiased (and so perhaps negative) estimate from samples of both, in the units of x; time n² + m² + n m.

    Raises:
        InputError: if there are fewer than two of either, or their shapes differ.
    """
    if min(len(x), len(y)) < 2 or x.shape[1:] != y.shape[1:]:
        raise InputError(f"energy_distance needs at least two examples of one shape on each side: {x.shape}, {y.shape}")
    n, m, dtype = len(x), len(y), floating(x, y)

    def estimate(x: Array, y: Array) -> Array:
        return 2 * _total(x, y) / (n * m) - _total(x, x) / (n * (n - 1)) - _total(y, y) / (m * (m - 1))

    return eager.once(estimate, jnp.asarray(x, dtype).reshape(n, -1), jnp.asarray(y, dtype).reshape(m, -1))


def _total(x: Array, y: Array) -> Array:
    """Σ_ij ‖x_i - y_j‖, one row at a time; the distance of a point from itself is 0."""

    def row(one: Array) -> Array:
        return jnp.linalg.norm(y - one, axis=-1).sum()

    return jax.lax.map(row, x, batch_size=min(len(x), 256)).sum()
