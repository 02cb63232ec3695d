"""Gibbs sampling (Geman and Geman 1984) and Adler's over-relaxation of it (1981), on vectors z of D coordinates.

    Gibbs            z_i ~ p(z_i | the others)
    over-relaxation  z_i ~ N(μ_i + a (z_i - μ_i), σ_i² (1 - a²)),   where p(z_i | the others) = N(μ_i, σ_i²)

Both leave p invariant. a = 0 is Gibbs. With -1 < a < 0 a coordinate moves to the other side of its mean, which avoids a
random walk in a narrow valley (Salimans, Kingma and Welling 2015 use a = -0.76). Over-relaxed draws are
reparameterised: they are differentiable in a, in the parameters of the conditionals and in the previous position.

A systematic scan visits 0 .. D - 1 in turn. A random scan visits D coordinates, drawn uniformly with replacement. A
step of either evaluates D conditionals. Only the random scan is reversible.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax import eager
from diffjax.distributions import Distribution, Normal
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.mcmc.kernel import Kernel

Scan = Literal["systematic", "random"]


class State(NamedTuple):
    """position: (D,), z."""

    position: Float[Array, " D"]


class Info(NamedTuple):
    """sites: (D,), the coordinates in the order in which they were drawn."""

    sites: Int[Array, " D"]


def gibbs(conditional: Callable[[Array, Array], Distribution], scan: Scan = "systematic") -> Kernel:
    """Draws one coordinate after the other from its conditional.

    Args:
        conditional: (i, z (D,)) -> the scalar Distribution of z_i given the others, e.g. Normal or Bernoulli. i is
            traced: index with it, do not branch on it.
        scan: "systematic" or "random", see above.

    Returns:
        A Kernel on floating-point vectors (D,). `vmap` over keys and states makes many chains.

    Raises:
        InputError: if scan is unknown; from the kernel, if a position is not a vector or a conditional is not a scalar.
    """
    if scan not in get_args(Scan):
        raise InputError(f"scan must be one of {', '.join(get_args(Scan))}, not {scan!r}")

    def init(position: Array) -> State:
        position = jnp.asarray(position)
        if position.ndim != 1 or position.size == 0:
            raise InputError(f"position must be a vector (D,), not of shape {position.shape}: vmap makes many chains")
        return State(as_float(position))

    def step(key: PRNGKeyArray, state: State) -> tuple[State, Info]:
        return eager.once(sweep, key, state)

    def sweep(key: PRNGKeyArray, state: State) -> tuple[State, Info]:
        num = state.position.size
        site_key, draw_key = jax.random.split(key)
        sites = jnp.arange(num) if scan == "systematic" else jax.random.randint(site_key, (num,), 0, num)

        def update(z: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            i, key = item
            value = conditional(i, z).sample(key)
            if jnp.shape(value):
                raise InputError(f"conditional must give a scalar, not one of shape {value.shape}: index with i")
            return z.at[i].set(value.astype(z.dtype)), None

        position, _ = jax.lax.scan(update, state.position, (sites, jax.random.split(draw_key, num)))
        return State(position), Info(sites)

    return Kernel(init, step)


def over_relaxed_gibbs(
    conditional: Callable[[Array, Array], tuple[ArrayLike, ArrayLike]], a: ArrayLike, scan: Scan = "systematic"
) -> Kernel:
    """`gibbs` with `over_relaxed` conditionals.

    Args:
        conditional: (i, z (D,)) -> mean and variance of z_i given the others, which must be Gaussian.
        a: in (-1, 1).

    Raises:
        InputError: as in `gibbs`, or if a is a number outside (-1, 1).
    """
    _check(a)

    def relaxed(i: Array, z: Array) -> Normal:
        mean, variance = conditional(i, z)
        return over_relaxed(Normal(jnp.asarray(mean), jnp.asarray(variance)), z[i], a)

    return gibbs(relaxed, scan)


def over_relaxed(conditional: Normal, z: ArrayLike, a: ArrayLike) -> Normal:
    """The distribution of the next z by Adler's rule, elementwise. Use it where the density of a transition is needed.

    Raises:
        InputError: if a is a number outside (-1, 1).
    """
    _check(a)
    dtype = floating(*conditional, z)
    mean, variance, z, a = (jnp.asarray(value, dtype) for value in (*conditional, z, a))
    return Normal(mean + a * (z - mean), variance * (1.0 - jnp.square(a)))


def _check(a: ArrayLike) -> None:
    if jnp.ndim(a) or not (isinstance(a, jax.core.Tracer) or -1.0 < np.asarray(a) < 1.0):
        raise InputError(f"a must be a number between -1 and 1, both excluded, not {a}")
