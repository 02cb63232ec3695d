"""Annealed importance sampling (Neal 2001): an unbiased estimate of a normalising constant.

The geometric path leads from a start p_0, which has samples and a density, to an unnormalised target f_1:

    log f_β = (1 - β) log p_0 + β log f_1,   0 = β_0 < β_1 < ... < β_K = 1.

The chain is z_0 ~ p_0, z_k ~ T_k(z_{k-1}) for 0 < k < K, where T_k leaves f_{β_k} invariant. The weight is

    log w = Σ_{k<K} (β_{k+1} - β_k) [log f_1(z_k) - log p_0(z_k)],   E[w] = ∫ f_1.

E[w] = ∫ f_1 holds for every K and for kernels that mix slowly. Few steps and slow mixing only increase the variance of
log w, and widen the gap in E[log w] ≤ log ∫ f_1. It does not hold for kernels that leave f_β only approximately
invariant, such as Langevin or Hamiltonian kernels without the Metropolis test. K = 1 is importance sampling.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.dtypes import AnyArray, as_float, floating
from diffjax.errors import InputError
from diffjax.mcmc.hmc import LogDensity
from diffjax.mcmc.integrators import Position, is_concrete, promoted, typed
from diffjax.mcmc.kernel import Kernel, can_move


class Start(Protocol):
    """The start of a path: a Distribution, or anything with these two methods, e.g. a learned q(z|x)."""

    def sample(self, key: PRNGKeyArray) -> Position: ...
    def log_prob(self, x: Position) -> Array: ...


class Annealed(NamedTuple):
    """log_weight: (), log w in nats. position: z_{K-1}; with the weight w it is a draw from the target.

    infos: the infos of the kernels, stacked along a first axis of length K - 1.
    """

    log_weight: Float[Array, ""]
    position: Position
    infos: Any


def ais(
    key: PRNGKeyArray,
    start: Start,
    log_density: LogDensity,
    betas: Float[AnyArray, " num_betas"] | Sequence[float],
    kernel: Callable[[LogDensity, Array], Kernel],
) -> Annealed:
    """One weighted draw, as one scan. `vmap` over keys (and starts) makes many; their mean weight estimates ∫ f_1.

    Args:
        start: p_0, a Distribution of one position. Its log_prob, elementwise or not, is summed.
        log_density: log f_1, position -> scalar in nats, finite at every draw of p_0.
        betas: (num_betas,), from 0 to 1, e.g. jnp.linspace(0, 1, 101).
        kernel: (log f_β, β ()) -> the Kernel that moves at β, e.g. lambda f, beta: hmc(f, 0.2 / (1 + beta), 10).

    Raises:
        InputError: if betas are not a vector of at least 2 numbers, concrete betas do not increase strictly from 0 to
            1, log_density gives no scalar, or it or the score is not finite at the draw of p_0. Under `jit` this last
            error cannot be raised: log_weight is not finite then, or the infos show a chain that does not move.
    """

    def log_start(z: Position) -> Array:
        return jnp.asarray(start.log_prob(z), floating(z)).sum()

    def log_target(z: Position) -> Array:
        value = jnp.asarray(log_density(z), floating(z))
        if value.shape:
            raise InputError(
                f"log_density must give a scalar, not an array of shape {value.shape}: sum it, and vmap ais"
            )
        return value

    def rise(z: Position, beta: Array, later: Array) -> Array:
        return (later - beta) * (log_target(z) - log_start(z))

    def moves(beta: Array) -> Kernel:
        return kernel(lambda z: (1.0 - beta) * log_start(z) + beta * log_target(z), beta)

    return _weighted(key, start, rise, betas, moves)


def ais_along(
    key: PRNGKeyArray,
    start: Start,
    rise: Callable[[Position, Array, Array], Array],
    betas: Float[AnyArray, " num_betas"] | Sequence[float],
    kernel: Callable[[Array], Kernel],
) -> Annealed:
    """`ais` along any path from f_0 = p_0 to f_1, with log w = Σ_k log f_{β_{k+1}}(z_k) - log f_{β_k}(z_k).

    A model with hidden units has a better path than the geometric one: that of models in between, hidden units summed
    out (Salakhutdinov and Murray 2008).

    Args:
        start: p_0, a Distribution of one position.
        rise: (z, β, β') -> log f_β'(z) - log f_β(z), a scalar.
        betas: from 0 to 1.
        kernel: β () -> the Kernel that leaves f_β alone.

    Raises:
        InputError: as `ais`.
    """
    return _weighted(key, start, rise, betas, kernel)


def _weighted(
    key: PRNGKeyArray,
    start: Start,
    rise: Callable[[Position, Array, Array], Array],
    betas: Any,
    kernel: Callable[[Array], Kernel],
) -> Annealed:
    betas = _checked(betas)

    def program(key: PRNGKeyArray, betas: Array) -> tuple[Annealed, Array]:
        start_key, key = jax.random.split(key)
        position = promoted(start.sample(start_key))

        def body(carry: tuple[Position, Array], item: tuple[Array, Array, Array]) -> tuple[tuple[Position, Array], Any]:
            position, log_weight = carry
            key, beta, later = item
            moves = kernel(beta)
            before = moves.init(position)
            state, info = moves.step(key, before)
            position = typed(state.position, position)
            return (position, log_weight + rise(position, beta, later)), (info, can_move(before))

        betas = betas.astype(floating(position))
        keys = jax.random.split(key, betas.size - 2)
        first = position, rise(position, betas[0], betas[1])
        (position, log_weight), (infos, moved) = jax.lax.scan(body, first, (keys, betas[1:-1], betas[2:]))
        return Annealed(log_weight, position, infos), jnp.isfinite(log_weight) & moved[:1].all()

    drawn, sound = eager.once(program, key, betas)
    if is_concrete(sound) and not sound:
        raise InputError("log_density and its score must be finite wherever start draws: they are not at this draw")
    return drawn


def _checked(betas: Any) -> Array:
    if np.ndim(betas) != 1 or np.size(betas) < 2:
        raise InputError(f"betas must be a vector of at least 2 numbers, not of shape {np.shape(betas)}")
    if not isinstance(betas, jax.core.Tracer):
        values = np.asarray(betas)
        if values[0] != 0.0 or values[-1] != 1.0 or not (np.diff(values) > 0).all():
            raise InputError(f"betas must increase strictly from 0 to 1, as jnp.linspace(0, 1, 101) does, not {values}")
    return as_float(betas)
