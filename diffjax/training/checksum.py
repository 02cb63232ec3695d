"""Checksums of the values of arrays, whatever file they are kept in and however they are laid over devices.

With b_i the bits of the word number i (of 32 bits; elements narrower than that are a word each, wider ones several) and
f, g two scramblings of the words, each one to one:

    c_1 = sum_i f(b_i ^ f(i))        mod 2^32
    c_2 = sum_i g(f(b_i ^ f(i)))     mod 2^32

Whatever changes a single word changes both. Anything else escapes with probability 2^-64; exchanged words too, because
f is not linear: b_i times a number that depends on i would not notice x and -x changing places, for x - (-x) is 2^31
in the bits and the difference of two odd multipliers even. Integer sums do not depend on their order, so every device
can sum what it holds.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

Words = UInt32[Array, "..."]


def checksums(tree: Any) -> dict[str, list[int]]:
    """Two numbers below 2^32 for each array of `tree`, by the array's name such as "params/w"; see `names`.

    The arrays stay where they are. With several processes all of them must make the call, and all get the same.
    """
    sums = [_checksum(_bits(x)) for x in jax.tree.leaves(tree)]
    return {name: [int(c) for c in jax.device_get(sum_)] for name, sum_ in zip(names(tree), sums, strict=True)}


def names(tree: Any) -> list[str]:
    """What the leaves of `tree` are called, in the order of `jax.tree.leaves`."""
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def _bits(x: Array) -> Array:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@jax.jit
def _checksum(x: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    words = _words(x)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):  # no reshape, which would move what is divided between devices
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    first = _f(words ^ _f(index))
    zero = jnp.uint32(0)
    # At once: two sums would make XLA keep what they share, an array as large as x.
    return jax.lax.reduce((first, _g(first)), (zero, zero), _add_both, tuple(range(words.ndim)))


def _add_both(a: tuple[Words, Words], b: tuple[Words, Words]) -> tuple[Words, Words]:
    return a[0] + b[0], a[1] + b[1]


def _words(x: Array) -> Words:
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _f(x: Words) -> Words:
    return _scramble(x, 0x7FEB352D, 0x846CA68B)


def _g(x: Words) -> Words:
    return _scramble(x, 0x85EBCA6B, 0xC2B2AE35)


def _scramble(x: Words, first: int, second: int) -> Words:
    """One to one: a shift and an odd factor can each be undone."""
    x = (x ^ (x >> 16)) * jnp.uint32(first)
    x = (x ^ (x >> 15)) * jnp.uint32(second)
    return x ^ (x >> 16)
