"""Checksums of values: against numpy, and against everything that can happen to a few bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.training.checksum import _checksum, checksums

DTYPES = ["float32", "bfloat16", "float16", "int32", "int8", "uint8", "bool", "complex64", "uint32"]


def scramble(x, first, second):
    """In Python's integers, which do not overflow."""
    x = (x ^ x >> 16) * first % 2**32
    x = (x ^ x >> 15) * second % 2**32
    return x ^ x >> 16


def by_hand(x):
    """The two sums as the module's text has them, word by word."""
    raw = np.ascontiguousarray(x)
    wide = raw.dtype.itemsize >= 4
    words = [int(word) for word in raw.reshape(-1).view(np.uint32 if wide else f"u{raw.dtype.itemsize}")]
    f = [scramble(b ^ scramble(i, 0x7FEB352D, 0x846CA68B), 0x7FEB352D, 0x846CA68B) for i, b in enumerate(words)]
    return [sum(f) % 2**32, sum(scramble(x, 0x85EBCA6B, 0xC2B2AE35) for x in f) % 2**32]


def draw(dtype, shape, seed=0):
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, jnp.dtype(dtype).itemsize), dtype=np.uint8)
    return (bits[..., 0] % 2).astype(bool) if dtype == "bool" else bits.view(jnp.dtype(dtype))[..., 0]


def of(x):
    return checksums({"x": jnp.asarray(x)})["x"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_agrees_and_no_flipped_bit_goes_unnoticed(dtype):
    x = draw(dtype, (2, 3))
    assert of(x) == by_hand(x)
    raw = x.tobytes()
    seen = [tuple(of(x))]
    for bit in range(0, 8 * len(raw), 8 if dtype == "bool" else 1):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        seen.append(tuple(of(np.frombuffer(bytes(flipped), x.dtype).reshape(x.shape))))
    for one in zip(*seen, strict=True):  # each of the two by itself
        assert len(set(one)) == len(seen)


def test_exchanged_elements_are_noticed_and_a_minus_too():
    """x and -x differ in the highest bit alone, where sums of products see nothing."""
    x = np.array([1.5, -1.5, 0.0, -0.0, 7.0, 2.0], np.float32)
    sums = {tuple(of(x))}
    pairs = [(i, j) for i in range(6) for j in range(i)]
    for i, j in pairs:
        y = x.copy()
        y[[i, j]] = y[[j, i]]
        sums.add(tuple(of(y)))
    assert len(sums) == len(pairs) + 1
    assert of(x.reshape(2, 3)) == of(x)  # the shape is not its business


@pytest.mark.parametrize("spec", [P(), P("a"), P(None, "b"), P(("a", "b")), P("b", "a")])
def test_any_layout_gives_the_same(spec):
    x = draw("float32", (8, 12, 5))
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    assert of(jax.device_put(x, NamedSharding(mesh, spec))) == by_hand(x)


def test_names_scalars_empty_arrays_and_keys():
    tree = {"a": [jnp.float32(3.0), jnp.zeros((0, 2))], "key": jax.random.key(5), "none": None}
    assert checksums(tree) == {
        "a/0": by_hand(np.float32(3.0)),
        "a/1": [0, 0],
        "key": by_hand(np.asarray(jax.random.key_data(tree["key"]))),
    }


def test_nothing_as_large_as_the_array_is_made():
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.bfloat16)
    first = np.zeros(2, np.uint32)
    assert _checksum.lower(x, first, x.shape).compile().memory_analysis().temp_size_in_bytes < 10_000
