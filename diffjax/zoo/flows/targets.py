"""The four energies on the plane of Rezende & Mohamed 2015 (table 1), in a box.

    U_1 = ½ [(|z| - 2)/0.4]² - log{exp(-½ [(z_1 - 2)/0.6]²) + exp(-½ [(z_1 + 2)/0.6]²)}
    U_2 = ½ [(z_2 - w_1)/0.4]²
    U_3 = -log{exp(-½ [(z_2 - w_1)/0.35]²) + exp(-½ [(z_2 - w_1 + w_2)/0.35]²)}
    U_4 = -log{exp(-½ [(z_2 - w_1)/0.4]²) + exp(-½ [(z_2 - w_1 + w_3)/0.35]²)}
    w_1 = sin(2π z_1/4),  w_2 = 3 exp(-½ [(z_1 - 1)/0.6]²),  w_3 = 3 sigmoid((z_1 - 1)/0.3)

exp(-U_2) .. exp(-U_4) have no finite integral, because they extend along z_1 without end. The paper's figure shows
|z_i| ≤ 4. So the energy here has one more term, Σ_i ½ [max(|z_i| - 4, 0)/0.25]². With it log Z is finite.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

BOX, EDGE = 4.0, 0.25  # half the width of the box, and the width of its soft edge


def energies(z: Float[Array, "*batch 4 2"]) -> Float[Array, "*batch 4"]:
    """U_1 .. U_4, each at its own point, including the term of the box."""
    first, second, third, fourth = (z[..., i, :] for i in range(4))
    each = [_one(first), _two(second), _three(third), _four(fourth)]
    return jnp.stack(each, -1) + 0.5 * (jnp.maximum(jnp.abs(z) - BOX, 0.0) ** 2).sum(-1) / EDGE**2


def log_z(half_width: float = 6.0, points: int = 601) -> Float[np.ndarray, "4"]:
    """log ∫ exp(-U) in nats, by the trapezoidal rule on a square. Nearly exact if exp(-U) vanishes at the edge."""
    axis = np.linspace(-half_width, half_width, points)
    negative = -np.asarray(jax.jit(energies)(on_grid(axis)), np.float64).reshape(-1, 4)
    top = negative.max(0)
    return top + np.log(np.exp(negative - top).sum(0) * (axis[1] - axis[0]) ** 2)


def on_grid(axis: Float[np.ndarray, " n"]) -> Float[Array, "n n 4 2"]:
    """The grid points of a square, repeated for each energy. A row of the grid has one z_2."""
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(axis, float), jnp.asarray(axis, float)), -1)
    return jnp.broadcast_to(grid[:, :, None], (*grid.shape[:2], 4, 2))


def _one(z: Array) -> Array:
    square = (z**2).sum(-1)
    radius = jnp.sqrt(jnp.where(square > 0, square, 1e-30))  # finite gradients at the origin, too
    return 0.5 * ((radius - 2) / 0.4) ** 2 - _either((z[..., 0] - 2) / 0.6, (z[..., 0] + 2) / 0.6)


def _two(z: Array) -> Array:
    return 0.5 * (_above(z) / 0.4) ** 2


def _three(z: Array) -> Array:
    bump = 3 * jnp.exp(-0.5 * ((z[..., 0] - 1) / 0.6) ** 2)
    return -_either(_above(z) / 0.35, (_above(z) + bump) / 0.35)


def _four(z: Array) -> Array:
    step = 3 * jax.nn.sigmoid((z[..., 0] - 1) / 0.3)
    return -_either(_above(z) / 0.4, (_above(z) + step) / 0.35)


def _above(z: Array) -> Array:
    return z[..., 1] - jnp.sin(0.5 * jnp.pi * z[..., 0])


def _either(a: Array, b: Array) -> Array:
    return jnp.logaddexp(-0.5 * a**2, -0.5 * b**2)
