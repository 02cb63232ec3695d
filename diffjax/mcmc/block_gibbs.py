"""Block Gibbs sampling: whole arrays at a time, each from its law given the others.

    z = (z_1, ..., z_B),    z_b ~ p(z_b | the other blocks),  b = 1 .. B in turn

It pays where the elements of a block are independent given the other blocks, as the layers of a Boltzmann machine are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from diffjax import eager
from diffjax.distributions import Distribution
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.mcmc.kernel import Kernel

Blocks = tuple[Array, ...]


class BlockState(NamedTuple):
    """position: the blocks, a tuple of arrays."""

    position: Blocks


class BlockInfo(NamedTuple):
    """laws: the Distribution from which each block was drawn, so that means can be taken over it in closed form."""

    laws: tuple[Any, ...]


def block_gibbs(conditionals: Sequence[Callable[[Blocks], Distribution]]) -> Kernel:
    """Draws the blocks in turn.

    Args:
        conditionals: one for each block: all blocks -> the Distribution of this one given the others, of its shape.

    Returns:
        A Kernel on tuples of floating-point arrays; `vmap` over keys and states makes many chains.

    Raises:
        InputError: if there is no conditional; from the kernel, if a position has another number of blocks, or a
            conditional another shape than its block.
    """
    if not conditionals:
        raise InputError("conditionals is empty: give one for each block")

    def init(position: Blocks) -> BlockState:
        if not isinstance(position, tuple) or len(position) != len(conditionals):
            raise InputError(f"position must be a tuple of {len(conditionals)} arrays, one for each conditional")
        return BlockState(tuple(as_float(block) for block in position))

    def sweep(key: PRNGKeyArray, state: BlockState) -> tuple[BlockState, BlockInfo]:
        position, laws = list(state.position), []
        keys = jax.random.split(key, len(position))
        for i, (draw_key, conditional) in enumerate(zip(keys, conditionals, strict=True)):
            law = conditional(tuple(position))
            drawn = law.sample(draw_key)
            if drawn.shape != position[i].shape:
                raise InputError(f"conditional {i} gives shape {drawn.shape}, and its block has {position[i].shape}")
            position[i] = jnp.asarray(drawn, position[i].dtype)
            laws.append(law)
        return BlockState(tuple(position)), BlockInfo(tuple(laws))

    return Kernel(init, lambda key, state: eager.once(sweep, key, state))
