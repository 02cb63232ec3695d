"""log Z of an energy by a sum over all points: log Σ exp(-E) of bits, log ∫ exp(-E) on a grid of one or two axes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

MOST_BITS = 20
POINTS = 400  # of the grid to a side
BLOCK = 2**13  # points at a time


class Support(NamedTuple):
    """All points of a sum, and the logarithm of the weight that each has.

    num: how many
    points(indices (n,)) -> (n, dim)
    log_weight: 0 for bits, the logarithm of a cell's size on a grid
    """

    num: int
    points: Callable[[Array], Array]
    log_weight: float


def support(shape: tuple[int, ...], levels: int, half_width: float) -> Support | None:
    """Of vectors of bits, up to `MOST_BITS` of them, or of points in the line or the plane within `half_width` of 0.

    None where a sum over all points is out of reach.
    """
    if len(shape) != 1:
        return None
    (dim,) = shape
    if levels == 2 and dim <= MOST_BITS:
        return Support(2**dim, lambda i: (i[:, None] >> jnp.arange(dim) & 1).astype(float), 0.0)
    if levels == 0 and dim <= 2:
        cell = 2 * half_width / POINTS

        def points(i: Array) -> Array:
            places = i[:, None] // POINTS ** jnp.arange(dim) % POINTS
            return (places + 0.5) * cell - half_width

        return Support(POINTS**dim, points, dim * math.log(cell))
    return None


def log_partition(energy: Callable[[Array], Array], over: Support) -> Array:
    """log Z, a scalar in nats. On a grid it lacks what lies outside, and has the error of the midpoint rule."""
    blocks = -(-over.num // BLOCK)

    def one(block: Array) -> Array:
        index = block * BLOCK + jnp.arange(BLOCK)
        inside = index < over.num
        values = -energy(over.points(jnp.where(inside, index, 0)))
        return jax.nn.logsumexp(jnp.where(inside, values, -jnp.inf))

    return jax.nn.logsumexp(jax.lax.map(one, jnp.arange(blocks))) + over.log_weight
