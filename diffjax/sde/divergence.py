"""The divergence of a vector field, exactly or by random probes (Hutchinson 1990; Grathwohl et al. 2019, section 3.1).

    ∇·v = Σ_i ∂v_i/∂x_i                              "exact": one derivative per dimension
        = E uᵀ(∂v/∂x)u,  E uuᵀ = I                   "hutchinson": one per probe u

A probe is drawn once and kept while an equation is solved: the solver then sees a smooth integrand.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import randomness
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps

EXACT_UP_TO = 16  # dimensions in which the exact divergence is the default

Divergence = Literal["exact", "hutchinson"]
Probe = Literal["rademacher", "gaussian"]


def probes(
    key: randomness.Keys | None,
    x: Float[Array, "batch *event"],
    divergence: Divergence | None = None,
    num_probes: int = 1,
    probe: Probe = "rademacher",
) -> Float[Array, "probes batch *event"]:
    """Directions u such that the mean of uᵀ(∂v/∂x)u over them is the divergence, or an unbiased estimate of it.

    Args:
        key: one key or one per example; "exact" does not use it.
        divergence: None is "exact" up to 16 dimensions and "hutchinson" above.
        num_probes: the number of probes; each example has its own.

    Raises:
        InputError: on an unknown choice, num_probes below 1, or probes without a key.
    """
    dimensions = math.prod(x.shape[1:])
    divergence = divergence or ("exact" if dimensions <= EXACT_UP_TO else "hutchinson")
    if divergence not in get_args(Divergence):
        raise InputError(f"divergence must be one of {', '.join(get_args(Divergence))}, not {divergence!r}")
    check_num_steps("num_probes", num_probes)
    num_probes = int(num_probes)  # numpy's short integers overflow
    if probe not in get_args(Probe):
        raise InputError(f"probe must be one of {', '.join(get_args(Probe))}, not {probe!r}")
    if divergence == "exact":
        # √D e_i: their mean square is that of a probe, so that one mean serves both.
        basis = math.sqrt(dimensions) * jnp.eye(dimensions, dtype=x.dtype)
        return jnp.broadcast_to(basis.reshape(dimensions, 1, *x.shape[1:]), (dimensions, *x.shape))
    if key is None:
        raise InputError(f"key is None, and divergence='hutchinson' in {dimensions} dimensions draws probes: give one")
    sampler = jax.random.rademacher if probe == "rademacher" else jax.random.normal
    if not randomness.per_example(key):
        return sampler(key, (num_probes, *x.shape), x.dtype)
    return jax.vmap(lambda k: sampler(k, (num_probes, *x.shape[1:]), x.dtype), out_axes=1)(key)


def with_divergence(
    velocity: Callable[[Array], Array], x: Float[Array, "batch *event"], directions: Float[Array, "probes batch *event"]
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"], Float[Array, " batch"]]:
    """v(x), its divergence ∇·v and ‖∂v/∂x‖²_F = E |(∂v/∂x)u|², by the `probes` called `directions`."""

    def along(u: Array) -> tuple[Array, Array, Array]:
        v, dv = jax.jvp(velocity, (x,), (u,))
        return v, (u * dv).reshape(len(x), -1).sum(1), (dv**2).reshape(len(x), -1).sum(1)

    v, slopes, squares = jax.vmap(along, out_axes=(None, 0, 0))(directions)
    return v, slopes.mean(0), squares.mean(0)
