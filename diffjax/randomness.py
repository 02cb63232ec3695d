"""Randomness for a batch, from one key or from one key per example.

With a key per example, what an example draws does not depend on its neighbours in the batch: the draws of a training
step are then the same on one device or eight, however the batch is divided. Keys are `jax.random.key` keys; an old
`PRNGKey` counts as one key.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Key, PRNGKeyArray

from diffjax.errors import InputError

Keys = PRNGKeyArray | Key[Array, " batch"]  # one key, or one per example


def check_seed(name: str, seed: object) -> None:
    """Raises `InputError` unless the seed called `name` is an integer of at least 0 and below 2^32.

    `jax.random.key` keeps 32 bits of a seed, so that a larger one is the same as a small one.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{name} = {seed!r} must be an integer of at least 0 and below 2^32 = {2**32}")


def per_example(key: Keys) -> bool:
    """Whether `key` is one key per example, (batch,)."""
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1


def split(key: Keys, num: int) -> list[Keys]:
    """`num` new keys of the same form: one each, or one per example each."""
    if not per_example(key):
        return list(jax.random.split(key, num))
    return list(jax.vmap(lambda k: jax.random.split(k, num), out_axes=1)(key))


def each(key: Keys, batch: int) -> Key[Array, " batch"]:
    """A key per example: what `jax.vmap` over examples takes."""
    return key if per_example(key) else jax.random.split(key, batch)


def normal(key: Keys, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "batch ..."]:
    """Standard normal, `shape` = (batch, *event)."""
    if not per_example(key):
        return jax.random.normal(key, shape, dtype)
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(key)


def uniform(key: Keys, shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Uniform on [0, 1), `shape` = (batch, *event)."""
    if not per_example(key):
        return jax.random.uniform(key, shape)
    return jax.vmap(lambda k: jax.random.uniform(k, shape[1:]))(key)
