"""Radial flows: toward a point, or away from it (Rezende & Mohamed 2015, eq. 14 and appendix A.2).

    y = z + β (z - z_0)/(α + r),  r = |z - z_0|,    α = softplus(.) > 0,  β = -α + softplus(.) > -α

With the gap g = α + β > 0, no term is a difference of nearly equal numbers, even near the limit β = -α:

    y - z_0 = (z - z_0) (g + r)/(α + r),    det = [(g + r)/(α + r)]^(dim - 1) [r² + 2αr + αg]/(α + r)²

For the inverse, let ρ = |y - z_0|. Then r is the only positive root of r² + (g - ρ) r - αρ = 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike
from diffjax.errors import InputError
from diffjax.flows.flow import Flow, check_dim


def radial(
    centre: Float[Array, "*#batch dim"], raw_alpha: Float[Array, "*#batch"], raw_gap: Float[Array, "*#batch"]
) -> Flow:
    """z -> z + β (z - centre)/(α + r), α = softplus(raw_alpha), α + β = softplus(raw_gap), for any real parameters.

    It expands (β > 0) if raw_gap > raw_alpha, and is the identity if they are equal. Leading axes of the parameters
    broadcast against those of z.

    Raises:
        InputError: if the shapes do not fit.
    """
    centre, raw_alpha, raw_gap = alike(centre, raw_alpha, raw_gap)
    if centre.ndim < 1 or not raw_alpha.shape == raw_gap.shape == centre.shape[:-1]:
        raise InputError(
            "centre, raw_alpha and raw_gap must have shapes (*batch, dim), (*batch,) and (*batch,), not "
            f"{centre.shape}, {raw_alpha.shape}, {raw_gap.shape}"
        )
    dim = centre.shape[-1]

    def parts(z: Array) -> tuple[Array, Array, Array, Array]:
        """The centre, z - z_0, α and g, of one type."""
        check_dim("this radial flow", dim, z)
        z, middle, a, g = alike(z, centre, raw_alpha, raw_gap)
        return middle, z - middle, jax.nn.softplus(a), jax.nn.softplus(g)

    def log_det(r: Array, alpha: Array, gap: Array) -> Array:
        across = jnp.log(gap + r) - jnp.log(alpha + r)
        along = jnp.log(r**2 + 2 * alpha * r + alpha * gap) - 2 * jnp.log(alpha + r)
        return (dim - 1) * across + along

    def forward(z: Array) -> tuple[Array, Array]:
        middle, off, alpha, gap = parts(z)
        r = _norm(off)
        return middle + off * ((gap + r) / (alpha + r))[..., None], log_det(r, alpha, gap)

    def inverse(y: Array) -> tuple[Array, Array]:
        middle, off, alpha, gap = parts(y)
        rho = _norm(off)
        half = 0.5 * (rho - gap)
        root = jnp.sqrt(half**2 + alpha * rho)
        # The positive root, by the formula without cancellation. The inner where avoids a NaN in the gradient.
        r = jnp.where(half > 0, half + root, alpha * rho / jnp.where(half > 0, 1.0, root - half))
        return middle + off * ((alpha + r) / (gap + r))[..., None], -log_det(r, alpha, gap)

    return Flow(forward, inverse)


def _norm(x: Array) -> Array:
    """|x|, with the gradient 0 instead of NaN at x = 0."""
    square = (x * x).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
