"""A Markov chain Monte Carlo kernel, and the loop that runs it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, PRNGKeyArray

from diffjax import eager
from diffjax.mcmc.integrators import Position, check_num_steps


class Kernel(NamedTuple):
    """init(position) -> state; step(key, state) -> (state, info).

    States and infos are NamedTuples of arrays. Every state has a field `position`. `vmap` makes many chains, `scan` a
    long one, and `grad` goes through a chain with differentiable steps.
    """

    init: Callable[[Position], Any]
    step: Callable[[PRNGKeyArray, Any], tuple[Any, Any]]


def can_move(state: Any) -> Bool[Array, ""]:
    """Whether position, log-density and score are finite, as far as the state has them. If not, nothing is accepted."""
    parts = [state.position, *(getattr(state, name, None) for name in ("log_density", "score"))]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parts)]).all()


def run(kernel: Kernel, key: PRNGKeyArray, position: Position, num_steps: int) -> tuple[Any, Any]:
    """One chain of `num_steps` from a position, as one scan. `vmap` over key and position makes several chains.

    Returns:
        The states after every step and their infos, stacked along a new first axis. `vmap` over key and position
        makes many chains.

    Raises:
        InputError: if num_steps is not a positive integer, or as the kernel's `init` for the position.
    """
    num_steps = check_num_steps("num_steps", num_steps)

    def body(state: Any, key: PRNGKeyArray) -> tuple[Any, tuple[Any, Any]]:
        state, info = kernel.step(key, state)
        return state, (state, info)

    def chain(state: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        return jax.lax.scan(body, state, jax.random.split(key, num_steps))[1]

    return eager.once(chain, kernel.init(position), key)
