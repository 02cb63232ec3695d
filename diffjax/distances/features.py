"""Common parts of all distances between samples: float64 matrices, squared distances, an estimate and its error.

The distances are small differences of large numbers, so they need float64. JAX computes in float32 by default, and TPUs
have no float64. So JAX computes the features, on all devices, and numpy the distances.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from diffjax.errors import InputError

BLOCK = 2**22  # pairs at a time, 32 MB an array
ROUNDING = 1e-13  # of a squared distance, relative to the squared norms from which it is computed


class Estimate(NamedTuple):
    """A number and its standard error. float(estimate) is the number."""

    value: float
    standard_error: float

    def __float__(self) -> float:
        return self.value


def matrices(a: ArrayLike, b: ArrayLike, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """a (n, ...) and b (m, ...) as float64 (n, d) and (m, d).

    Raises:
        InputError: unless each has at least `least` rows, all rows have one shape, and all numbers are finite.
    """
    arrays = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shapes = f"{arrays[0].shape} and {arrays[1].shape}"
    if any(x.ndim < 1 or len(x) < least or not x.size for x in arrays):
        raise InputError(f"features of shape {shapes}: give at least {least} examples on each side, one per row")
    if arrays[0].shape[1:] != arrays[1].shape[1:]:
        raise InputError(f"features of shape {shapes}: the examples of both sides must have one shape")
    for x in arrays:
        if bad := int((~np.isfinite(x.reshape(len(x), -1))).any(1).sum()):
            raise InputError(f"{bad} of {len(x)} examples have features that are NaN or infinite: leave them out")
    first, second = (x.reshape(len(x), -1) for x in arrays)
    return first, second


def blocks(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances (rows, m) of some rows of a from all of b, with the slice that says which rows."""
    centre = b.mean(0)  # distances stay the same, and are computed from smaller numbers
    a, b = a - centre, b - centre
    ours, theirs = (a**2).sum(1), (b**2).sum(1)
    rows = max(1, BLOCK // len(b))
    for first in range(0, len(a), rows):
        part = slice(first, min(first + rows, len(a)))
        norms = ours[part, None] + theirs
        square = norms - 2 * a[part] @ b.T
        square[square < ROUNDING * norms] = 0.0
        yield part, square
