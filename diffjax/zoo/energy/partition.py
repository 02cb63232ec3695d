"""log Z of an energy by a sum, where there is one: log Σ exp(-E) over all bits, log ∫ exp(-E) on a grid of the plane."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

MOST_BITS = 16
POINTS = 400  # of the grid to a side


class Support(NamedTuple):
    """All points of a sum, and the logarithm of the weight of each.

    points: (n, dim). log_weight: 0 for bits, the logarithm of a cell's area on a grid
    """

    points: np.ndarray
    log_weight: float


def support(shape: tuple[int, ...], levels: int, half_width: float) -> Support | None:
    """Of vectors of bits, up to `MOST_BITS` of them, or of points in the line or the plane within `half_width` of 0.

    None where a sum over all points is out of reach.
    """
    if len(shape) != 1:
        return None
    if levels == 2 and shape[0] <= MOST_BITS:
        return Support(np.array(list(itertools.product((0.0, 1.0), repeat=shape[0])), np.float32), 0.0)
    if levels == 0 and shape[0] <= 2:
        cell = 2 * half_width / POINTS
        side = (np.arange(POINTS, dtype=np.float32) + 0.5) * cell - half_width
        points = np.stack(np.meshgrid(*shape[0] * (side,), indexing="ij"), -1).reshape(-1, shape[0])
        return Support(points, shape[0] * math.log(cell))
    return None


def log_partition(energy: Callable[[Array], Array], over: Support) -> Array:
    """log Z, a scalar in nats. On a grid it lacks what lies outside, and the error of the midpoint rule."""
    blocks = np.array_split(over.points, max(1, len(over.points) // 2**14))
    sums = [jax.nn.logsumexp(-energy(jnp.asarray(block))) for block in blocks]
    return jax.nn.logsumexp(jnp.stack(sums)) + over.log_weight
