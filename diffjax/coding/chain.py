"""Bits-back coding with a Gaussian diffusion, from step to step (Bit-Swap, Kingma et al. 2019; HiLLoC, 2020).

    x_1 ~ q(x_1 | x_0) by the stack's bits,  x_0 by p(x_0 | x_1),
    x_2 ~ q(x_2 | x_1) by the stack's bits,  x_1 by p(x_1 | x_2),  ...,  x_T by p(x_T)

The net cost is minus the log-weight of the trajectory (`bounds.trajectory_log_weight`), on average the bound. At no
time are more than two x_t borrowed, so that an example borrows little.

Each entry of x_t is a multiple of `spacing`, which must be below the smallest standard deviation of a step. Rounding
cannot make a step dearer than its Kullback-Leibler divergence; what it does cost is that x_t gets a little more noise
than the network has seen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import UInt8

from diffjax.bounds import Decoder
from diffjax.coding.codec import check_levels, groups, padded
from diffjax.coding.stack import Law, Stack, categorical, normal, normal_near
from diffjax.predictions import Predict
from diffjax.processes import Gaussian, Variance

SPACING = 1 / 64
REACH = 10.0  # x_t is between -10 and 10
FAR = 8.0  # standard deviations that a step may go
GROWTH = 0.15


class Chain:
    """Codes by the chain of a Gaussian process.

    Args:
        process, times, variance, decoder: of the bound, see `bounds.diffusion`. There must be a decoder.
        predict: params -> the network as its Predict.
        params: its parameters.
        shape, levels: of an example, whose levels 0 .. K - 1 are scaled to [-1, 1], and K.
        spacing: of the lattice of x_t.
    """

    overhead = "the bits of the first x_1 and x_2, and below 3% of rounding"

    def __init__(
        self,
        process: Gaussian,
        predict: Callable[[Any], Predict],
        params: Any,
        times: Array,
        variance: Variance,
        decoder: Decoder,
        shape: tuple[int, ...],
        levels: int,
        spacing: float = SPACING,
    ):
        self._params, self._shape, self._levels, self._spacing = params, shape, levels, spacing
        times = jnp.sort(jnp.asarray(times, jnp.float32))
        self._num_steps, self._reach = len(times) - 1, int(REACH / spacing)
        forward = jax.jit(jax.vmap(lambda s, t: process.transition(jnp.ones(()), s, t)))(times[:-1], times[1:])
        self._alpha, self._std = np.asarray(forward.mean, float), np.sqrt(np.asarray(forward.variance, float))
        self._prior_std = float(np.sqrt(np.asarray(process.prior(()).variance)))

        def reverse(params: Any, index: Array, i: Array) -> tuple[Array, Array]:
            """Mean and deviation of p(x_{t_i} | x_{t_{i+1}}), in units of the lattice."""
            xt, t = index * jnp.float32(spacing), jnp.broadcast_to(times[i + 1], index.shape[:1])
            law = process.reverse(predict(params)(xt, t), xt, jnp.broadcast_to(times[i], t.shape), t, variance)
            return law.mean / spacing, jnp.broadcast_to(jnp.sqrt(law.variance) / spacing, xt.shape)

        def first(params: Any, index: Array) -> Array:
            """Log-probabilities (batch, *shape, K) of p(x_0 | x_{t_1})."""
            xt, t = index * jnp.float32(spacing), jnp.broadcast_to(times[1], index.shape[:1])
            prediction, zero = predict(params)(xt, t), jnp.zeros_like(t)
            law = process.reverse(prediction, xt, zero, t, variance)
            small = process.reverse(prediction, xt, zero, t, "posterior").variance if variance == "forward" else 0.0
            decoded = decoder(law.mean, jnp.where(small > 0, small, law.variance))
            return jax.vmap(decoded.log_prob, out_axes=-1)(jnp.linspace(-1.0, 1.0, levels))

        self._reverse, self._first = jax.jit(reverse), jax.jit(first)

    def encode(self, levels: UInt8[np.ndarray, "num *shape"]) -> Stack:
        check_levels(levels, self._shape, self._levels)
        stack = Stack()
        for group in groups(len(levels), GROWTH):
            symbols = levels[group].astype(np.int32)
            for i in range(self._num_steps):
                later = stack.borrow(self._forward(symbols, i)).reshape(symbols.shape)
                stack.push(self._back(later, i), symbols)
                symbols = later
            stack.push(self._prior(symbols.size), symbols)
        return stack

    def decode(self, stack: Stack, num: int) -> UInt8[np.ndarray, "num *shape"]:
        levels = np.zeros((num, *self._shape), np.uint8)
        for group in groups(num, GROWTH)[::-1]:
            shape = levels[group].shape
            later = stack.pop(self._prior(levels[group].size)).reshape(shape)
            for i in range(self._num_steps)[::-1]:
                symbols = stack.pop(self._back(later, i)).reshape(shape)
                stack.push(self._forward(symbols, i), later)
                later = symbols
            levels[group] = later
        return levels

    def _forward(self, symbols: np.ndarray, i: int) -> Law:
        """q(x_{t_{i+1}} | x_{t_i}): levels of x_0 are scaled, all others are on the lattice."""
        x = symbols * (2.0 / (self._levels - 1)) - 1.0 if i == 0 else symbols * self._spacing
        std = self._std[i] / self._spacing
        return normal_near(self._alpha[i] * x / self._spacing, std, int(np.ceil(FAR * std)) + 1)

    def _back(self, later: np.ndarray, i: int) -> Law:
        """p(x_{t_i} | x_{t_{i+1}})."""
        index = padded(later.astype(np.float32))
        if i == 0:
            return categorical(np.asarray(self._first(self._params, index))[: len(later)])
        mean, std = (np.asarray(a)[: len(later)] for a in self._reverse(self._params, index, jnp.int32(i)))
        return normal(mean, std, self._reach)

    def _prior(self, num: int) -> Law:
        return normal(np.zeros(num), np.full(num, self._prior_std / self._spacing), self._reach)
