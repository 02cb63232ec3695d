"""The chain of a contractive auto-encoder: noise along the manifold that its Jacobian shows (Rifai et al. 2012).

    h = encode(x),  J = ∂h/∂x,  ε ~ N(0, σ² I),  x' = decode(h + J Jᵀ ε)

Where the encoder is contractive, the few directions in which it still moves are those of the data, so J Jᵀ ε keeps to
them. The stationary law is not that of the data. For a linear pair it is a Gaussian in closed form, that of an
autoregression.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax.dtypes import as_float
from diffjax.mcmc.kernel import Kernel


class Tangent(NamedTuple):
    """position: (dim,), x."""

    position: Float[Array, " dim"]


def tangent_walk(encode: Callable[[Array], Array], decode: Callable[[Array], Array], sigma: ArrayLike) -> Kernel:
    """The chain as a Kernel on vectors (dim,).

    Args:
        encode: x (dim,) -> h (code,), differentiable.
        decode: h (code,) -> (dim,).
        sigma: standard deviation of ε.
    """

    def step(key: PRNGKeyArray, state: Tangent) -> tuple[Tangent, tuple]:
        h, pull = jax.vjp(encode, state.position)
        (tangent,) = pull(sigma * jax.random.normal(key, h.shape, h.dtype))
        _, moved = jax.jvp(encode, (state.position,), (tangent,))
        return Tangent(decode(h + moved)), ()

    return Kernel(lambda position: Tangent(as_float(position)), step)
