"""Checksums of the values of arrays. They do not depend on the file format, or on how arrays lie on devices.

Let b_i be the i-th 32-bit word of an array. A narrower element is one word, a wider one several. Let f and g be two
one-to-one scramblings of words. The checksums are

    c_1 = sum_i f(b_i ^ f(i))        mod 2^32
    c_2 = sum_i g(f(b_i ^ f(i)))     mod 2^32

A change of a single word changes both sums. Any other change goes unnoticed with probability 2^-64. That holds for
exchanged words, too, because f is not linear. (The linear choice, b_i times an odd number that depends on i, would not
notice that x and -x change places: their bits differ by 2^31, and the difference of two odd numbers is even.) Integer
sums do not depend on the order, so every device can sum its own part.

A checkpoint stores the checksums together with its other data, `meta`, and a checksum of that:

    {"meta": ..., "state_checksums": {"params/w": [c_1, c_2], ...}, "meta_crc32": ...}
"""

import json
import zlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, UInt32

Words = UInt32[Array, "..."]
_WRAPPING = {"meta", "state_checksums", "meta_crc32"}


class Differs(Exception):
    """What was read is not what was written. The message says what differs."""


def checksums(tree: Any) -> dict[str, list[int]]:
    """Two numbers below 2^32 for each array of `tree`, by the array's name such as "params/w"; see `names`.

    The arrays stay where they are. With several processes, all must make this call, and all get the same result.
    """
    parts = [_of_shards(jnp.asarray(_bits(x))) for x in jax.tree.leaves(tree)]
    sums = np.array([np.sum(jax.device_get(part), axis=0, dtype=np.uint32) for part in parts], np.uint32)
    if jax.process_count() > 1:
        sums = multihost_utils.process_allgather(sums).sum(0, dtype=np.uint32)
    return {name: [int(c) for c in pair] for name, pair in zip(names(tree), sums, strict=True)}


def names(tree: Any) -> list[str]:
    """The names of the leaves of `tree`, in the order of `jax.tree.leaves`."""
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def wrap(meta: dict[str, Any], state_checksums: dict[str, list[int]]) -> dict[str, Any]:
    """The JSON to write: `meta`, the checksums of the state, and a checksum of `meta`."""
    # In the form that JSON gives back: tuples become lists, keys become strings, numbers that are not finite None.
    meta = json.loads(json.dumps(meta), parse_constant=lambda _: None)
    return {"meta": meta, "state_checksums": state_checksums, "meta_crc32": _crc32(meta)}


def unwrap(saved: Any) -> tuple[dict[str, Any], dict[str, list[int]] | None]:
    """The meta and the checksums of the state. These are None in a checkpoint from before there were checksums."""
    if not isinstance(saved, dict):
        raise Differs("its meta is not what was written")
    if not saved.keys() & _WRAPPING:  # no key at all: one damaged key must not look like an old checkpoint
        return saved, None
    if saved.keys() != _WRAPPING or _crc32(saved["meta"]) != saved["meta_crc32"]:
        raise Differs("its meta differs from its checksum")
    return saved["meta"], saved["state_checksums"]


def _bits(x: Array) -> Array:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _of_shards(x: Array) -> list[Any]:
    """The sums over what this process holds, and no process after it: without one message between devices.

    (A compiled sum over a divided array for each array would be many programs that talk at once. On CPU several
    processes then wait for each other for ever.)
    """
    sums: list[Any] = [(np.uint32(0), np.uint32(0))]
    for shard in x.addressable_shards:
        if shard.replica_id == 0:
            first = np.array([part.start or 0 for part in shard.index], np.uint32)
            sums.append(_checksum(shard.data, first, x.shape))
    return sums


@partial(jax.jit, static_argnums=2)
def _checksum(part: Array, first: Words, shape: tuple[int, ...]) -> tuple[Words, Words]:
    """The sums over one part of an array of `shape`. The first element of the part has the indices `first`."""
    words = _words(part)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        inside = axis < len(shape)  # an element may be several words
        start, size = (first[axis], shape[axis]) if inside else (jnp.uint32(0), size)
        index = index * jnp.uint32(size) + start + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    scrambled = _f(words ^ _f(index))
    zero = jnp.uint32(0)
    # One reduction: with two, XLA would store their common input, an array as large as x.
    return jax.lax.reduce((scrambled, _g(scrambled)), (zero, zero), _add_both, tuple(range(words.ndim)))


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
    """One-to-one, because xor with a shift and multiplication by an odd number can be undone."""
    x = (x ^ (x >> 16)) * jnp.uint32(first)
    x = (x ^ (x >> 15)) * jnp.uint32(second)
    return x ^ (x >> 16)


def _crc32(meta: Any) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
