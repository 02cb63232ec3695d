"""Randomness for a batch, from one key or from one key per example.

With one key per example, the draws of an example do not depend on its neighbours in the batch. The draws of a training
step are then the same on one device or eight, however the batch is divided. Keys are `jax.random.key` keys; an old
`PRNGKey` counts as one key.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Key, PRNGKeyArray

from diffjax.errors import InputError

Keys = PRNGKeyArray | Key[Array, " batch"]  # one key, or one per example


def per_example(key: Keys) -> bool:
    """Whether `key` is one key per example, (batch,)."""
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1


def split(key: Keys, num: int) -> list[Keys]:
    """`num` new keys of the same form as `key`: each is one key, or one key per example."""
    if not per_example(key):
        return list(jax.random.split(key, num))
    return list(jax.vmap(lambda k: jax.random.split(k, num), out_axes=1)(key))


def fold_in(key: Keys, data: int) -> Keys:
    """A new key of the same form as `key`. It is none of the keys of `split` if `data` is above their number."""
    return jax.vmap(lambda k: jax.random.fold_in(k, data))(key) if per_example(key) else jax.random.fold_in(key, data)


def each(key: Keys, batch: int) -> Key[Array, " batch"]:
    """A key per example: what `jax.vmap` over examples takes."""
    return key if per_example(key) else jax.random.split(key, batch)


def normal(key: Keys, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "*shape"]:
    """Standard normal draws of `shape` = (batch, *event), or of any shape for a single key."""
    return _draw(lambda k, shape: jax.random.normal(k, shape, dtype), key, shape)


def uniform(key: Keys, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "*shape"]:
    """Uniform draws on [0, 1) of `shape` = (batch, *event), or of any shape for a single key.

    In float32 a draw is a multiple of 2^-23 ≈ 1.2e-7. This is too coarse for small probabilities: use `logistic`.
    """
    return _draw(lambda k, shape: jax.random.uniform(k, shape, dtype), key, shape)


def logistic(key: Keys, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "*shape"]:
    """Standard logistic draws of `shape` = (batch, *event), or of any shape for a single key.

    P(draw < logits) = sigmoid(logits), up to 2^-33 ≈ 1e-10 in both tails (2^-65 in float64).
    """
    dtype = jnp.result_type(dtype)
    num = max(32, jnp.finfo(dtype).bits)

    def draw(k: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        word = jax.random.bits(k, shape, f"uint{num}")
        # One bit for the side, the rest for the smaller of u and 1 - u: small in the tails, where floats are dense.
        u = ((word >> 1).astype(f"float{num}") + 0.5) * 2.0**-num
        size = jnp.log1p(-u) - jnp.log(u)
        return jnp.where(word % 2 == 0, size, -size).astype(dtype)

    return _draw(draw, key, shape)


def _draw(draw: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: Keys, shape: tuple[int, ...]) -> Array:
    return jax.vmap(lambda k: draw(k, shape[1:]))(key) if per_example(key) else draw(key, shape)


def check_seed(name: str, seed: object) -> None:
    """Raises `InputError` unless the seed called `name` is an integer of at least 0 and below 2^32.

    `jax.random.key` keeps 32 bits of a seed, so a larger seed would be the same as a smaller one.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{name} = {seed!r} must be an integer of at least 0 and below 2^32 = {2**32}")
