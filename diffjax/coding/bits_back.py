"""Bits-back coding with a VAE (Hinton & van Camp 1993; Townsend et al. 2019, BB-ANS).

    z ~ q(z | x) by bits that are on the stack,   x by p(x | z),   z by p(z)

The net cost is log q(z | x) - log p(x | z) - log p(z), on average -ELBO. A decoder undoes it from the last to the
first, and so gets back the bits that z was drawn by.

Each latent is one of `bins` intervals that have the same mass under the prior N(0, 1), and stands for the quantile in
the middle. To code it by the prior is then exact: log2(bins) bits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import UInt8
from scipy.special import ndtr, ndtri

from diffjax.coding.codec import check_levels, groups, padded
from diffjax.coding.stack import Law, Stack, categorical, uniform
from diffjax.distributions import Normal

BINS = 2**10
GROWTH = 0.25


class BitsBack:
    """Codes by a prior N(0, I), a posterior and a likelihood of levels.

    Args:
        posterior: (params, levels (batch, *shape)) -> q(z | x) (batch, dim).
        table: (params, z (batch, dim)) -> log-probabilities (batch, *shape, K) of the levels of each element.
        params: their parameters.
        shape, levels: of an example, and K.
        bins: intervals of a latent.
    """

    overhead = "the bits of the first latents, and below 1% of the rounding of latents"

    def __init__(
        self,
        posterior: Callable[[Any, Array], Normal],
        table: Callable[[Any, Array], Array],
        params: Any,
        shape: tuple[int, ...],
        levels: int,
        bins: int = BINS,
    ):
        self._posterior = jax.jit(posterior)
        self._table = jax.jit(table)
        self._params, self._shape, self._levels, self._bins = params, shape, levels, bins
        self._edges = ndtri(np.arange(1, bins) / bins)
        self._centres = ndtri((np.arange(bins) + 0.5) / bins).astype(np.float32)

    def encode(self, levels: UInt8[np.ndarray, "num *shape"]) -> Stack:
        check_levels(levels, self._shape, self._levels)
        stack = Stack()
        for group in groups(len(levels), GROWTH):
            x = levels[group].astype(np.uint8)
            z = stack.borrow(self._given(x)).reshape(len(x), -1)
            stack.push(self._likelihood(z), x)
            stack.push(uniform(z.size, self._bins), z)
        return stack

    def decode(self, stack: Stack, num: int) -> UInt8[np.ndarray, "num *shape"]:
        levels = np.zeros((num, *self._shape), np.uint8)
        dim = jax.eval_shape(self._posterior, self._params, jnp.zeros((1, *self._shape), jnp.uint8)).mean.shape[-1]
        for group in groups(num, GROWTH)[::-1]:
            size = group.stop - group.start
            z = stack.pop(uniform(size * dim, self._bins)).reshape(size, dim)
            levels[group] = stack.pop(self._likelihood(z)).reshape(size, *self._shape)
            stack.push(self._given(levels[group]), z)
        return levels

    def _likelihood(self, z: np.ndarray) -> Law:
        return categorical(np.asarray(self._table(self._params, padded(self._centres[z])))[: len(z)])

    def _given(self, x: np.ndarray) -> Law:
        """q(z | x) of the intervals."""
        q = self._posterior(self._params, padded(x))
        mean, variance = (np.broadcast_to(np.asarray(a, np.float64), np.shape(q.mean))[: len(x)] for a in q)
        at = (self._edges - mean[..., None]) / np.sqrt(variance)[..., None]
        # Φ(b) - Φ(a) = Φ(-a) - Φ(-b): on the side where both are small.
        lower = np.concatenate([np.full((*mean.shape, 1), -np.inf), at], -1)
        upper = np.concatenate([at, np.full((*mean.shape, 1), np.inf)], -1)
        flip = lower + upper > 0
        mass = ndtr(np.where(flip, -lower, upper)) - ndtr(np.where(flip, -upper, lower))
        with np.errstate(divide="ignore"):
            return categorical(np.log(mass))
