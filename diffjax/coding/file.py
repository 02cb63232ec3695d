"""The file of coded examples: a head of some 55 bytes, the words of the stack, and a checksum.

    4 bytes    "djxc"
    1          version
    1          kind of what was coded: .npy, .npz or an image
    2, 4       length of the facts, number of examples
    8          digest of the model
    4, 4       CRC-32 of the levels, number of words
    ...        facts: version of jax, device, CPU threads
    ...        words, 4 bytes each
    4          CRC-32 of all before

All numbers are little-endian. A damaged or truncated file, or one of another model, is found out before anything is
decoded. A decoder that does not agree with the encoder, as on another machine, is found out by the levels' checksum.
"""

import hashlib
import os
import platform
import struct
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.coding.stack import Stack
from diffjax.errors import InputError

MAGIC, VERSION = b"djxc", 1
HEAD = struct.Struct("<4sBBHI8sII")
CRC = struct.Struct("<I")
KINDS = ("npy", "npz", "png")


class Head(NamedTuple):
    """num: examples. model: 8 bytes, see `digest`. kind: of the file that was coded, one of KINDS."""

    num: int
    model: bytes
    kind: str


class Check(NamedTuple):
    """What decoded levels are checked by: their CRC-32, and the facts of the machine that coded them."""

    crc: int
    facts: str


def digest(params: Any, text: str = "") -> bytes:
    """8 bytes that tell a model from others: of its parameters' names and values, and of `text`."""
    found = hashlib.blake2b(text.encode(), digest_size=8)
    for path, leaf in jax.tree.leaves_with_path(params):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def facts() -> str:
    """What the floats of a network depend on, beside its parameters and inputs."""
    device = jax.devices()[0]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{platform.machine()} {threads} threads" if device.platform == "cpu" else device.device_kind
    return f"jax {jax.__version__} {machine}"


def pack(head: Head, words: np.ndarray, levels: np.ndarray) -> bytes:
    """The bytes of a file."""
    known = facts().encode()
    crc = _crc_of(levels)
    start = HEAD.pack(MAGIC, VERSION, KINDS.index(head.kind), len(known), head.num, head.model, crc, len(words))
    data = start + known + np.asarray(words, "<u4").tobytes()
    return data + CRC.pack(zlib.crc32(data))


def unpack(data: bytes, name: str = "the file") -> tuple[Head, np.ndarray, Check]:
    """The head, the words, and what decoded levels are checked by.

    Raises:
        InputError: if it is no such file, of a newer version, truncated or damaged.
    """
    if data[:4] != MAGIC:
        raise InputError(f"{name} was not written by --mode=compress: it does not begin with {MAGIC.decode()!r}")
    if len(data) > 4 and data[4] != VERSION:
        raise InputError(f"{name} is of version {data[4]} or damaged: this diffjax reads version {VERSION}")
    whole = HEAD.size
    if len(data) >= HEAD.size:
        _, _, kind, length, num, model, crc, count = HEAD.unpack(data[: HEAD.size])
        whole += length + 4 * count + CRC.size
    if len(data) < whole:
        raise InputError(f"{name} is truncated: it has {len(data)} of {whole} bytes or more; copy it again")
    if len(data) > whole or CRC.unpack(data[-4:])[0] != zlib.crc32(data[:-4]) or kind >= len(KINDS):
        raise InputError(f"{name} is damaged: its bytes differ from their checksum; copy it again")
    known = data[HEAD.size : HEAD.size + length].decode()
    words = np.frombuffer(data, "<u4", count, HEAD.size + length).astype(np.uint32)
    return Head(num, model, KINDS[kind]), words, Check(crc, known)


def stack_of(words: np.ndarray) -> Stack:
    """The stack to decode from."""
    return Stack(words)


def check_decoded(levels: np.ndarray, check: Check, name: str = "the file") -> None:
    """Raises `InputError` if the levels are not those that were coded."""
    if _crc_of(levels) == check.crc:
        return
    why = f"it was written by {check.facts}, and this is {facts()}" if check.facts != facts() else "these floats differ"
    raise InputError(
        f"{name} cannot be decoded here, where the network gives other floats than when it was coded: {why}"
    )


def _crc_of(levels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(levels, np.uint8).tobytes())
