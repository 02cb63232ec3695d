"""What a codec is, and how many examples it codes at once."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from diffjax.coding.stack import Stack
from diffjax.errors import InputError

BATCH = 128  # examples that a network sees at once
FEW = 16  # or so many, for smaller groups


class Codec(Protocol):
    """Levels 0 .. K - 1 as bits and back.

    overhead: what the size is beyond the reported bits, in words
    """

    overhead: str

    def encode(self, levels: UInt8[np.ndarray, "num *shape"]) -> Stack: ...
    def decode(self, stack: Stack, num: int) -> UInt8[np.ndarray, "num *shape"]: ...


def groups(num: int, growth: float) -> list[slice]:
    """Examples in groups, each at most `growth` of those before it, 1 at least and BATCH at most.

    A group of bits-back coding borrows the bits of all its latents at once. Groups that grow as the stack does find
    these bits on it.
    """
    found: list[slice] = []
    first = 0
    while first < num:
        last = min(first + min(max(int(growth * first), 1), BATCH), num)
        found.append(slice(first, last))
        first = last
    return found


def batches(num: int) -> Iterator[slice]:
    """Examples in batches of BATCH."""
    return (slice(first, min(first + BATCH, num)) for first in range(0, num, BATCH))


def padded(x: np.ndarray) -> np.ndarray:
    """x with zeros behind it, to FEW or BATCH examples: one of two compiled programs, the same in both directions."""
    size = FEW if len(x) <= FEW else BATCH
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])


def check_levels(levels: np.ndarray, shape: tuple[int, ...], num_levels: int, what: str = "levels") -> None:
    """Raises `InputError` unless `levels` is an array (num, *shape) of integers 0 .. num_levels - 1, not empty."""
    if levels.shape[1:] != shape or levels.ndim != len(shape) + 1 or not len(levels):
        raise InputError(f"{what} has the shape {levels.shape}, but the run's examples need (num, {str(shape)[1:-1]})")
    if levels.dtype.kind not in "bui":
        raise InputError(f"{what} is of type {levels.dtype}: give integers, the levels 0 .. {num_levels - 1}")
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high >= num_levels:
        raise InputError(f"{what} has the value {low if low < 0 else high}: levels are 0 .. {num_levels - 1}")
