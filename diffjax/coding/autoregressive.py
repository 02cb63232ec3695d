"""The code of an autoregressive model: entry after entry by its conditional, -log2 p(x) bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from diffjax.autoregressive import Conditionals
from diffjax.coding.codec import batches, check_levels, padded
from diffjax.coding.stack import Stack, categorical


class Autoregressive:
    """Codes by `Conditionals.step`, in a loop over the places for a batch of examples at a time.

    The whole-array `Conditionals.logits` would be faster to encode with, but sums in another order than the steps that
    a decoder must take. So the encoder takes the same steps.

    Args:
        conditionals: params -> Conditionals of the D entries of an example.
        params: its parameters.
        shape: of an example, D entries in C order.
    """

    overhead = "at most 8 bytes, and 2% in all"

    def __init__(self, conditionals: Callable[[Any], Conditionals], params: Any, shape: tuple[int, ...]):
        given = conditionals(params)
        self._order, self._levels, self._shape = np.asarray(given.order), given.num_classes, shape
        self._params = params
        self._step = jax.jit(lambda params, state, i, previous: conditionals(params).step(state, i, previous))
        self._init = lambda num: conditionals(params).init(num)

    def encode(self, levels: UInt8[np.ndarray, "num *shape"]) -> Stack:
        check_levels(levels, self._shape, self._levels)
        stack, x = Stack(), levels.reshape(len(levels), -1)[:, self._order].astype(np.int32)
        for batch in list(batches(len(x)))[::-1]:  # what is pushed last is decoded first
            laws, previous = [], np.zeros(len(padded(x[batch])), np.int32)
            state = self._init(len(previous))
            for i in range(len(self._order)):
                state, logits = self._step(self._params, state, jnp.int32(i), previous)
                laws.append(np.asarray(logits)[: len(x[batch])])
                previous = padded(x[batch, i])
            for i in range(len(self._order))[::-1]:
                stack.push(categorical(laws[i]), x[batch, i])
        return stack

    def decode(self, stack: Stack, num: int) -> UInt8[np.ndarray, "num *shape"]:
        x = np.zeros((num, len(self._order)), np.uint8)
        for batch in batches(num):
            size = batch.stop - batch.start
            previous = np.zeros(len(padded(x[batch])), np.int32)
            state = self._init(len(previous))
            for i, place in enumerate(self._order):
                state, logits = self._step(self._params, state, jnp.int32(i), previous)
                found = stack.pop(categorical(np.asarray(logits)[:size]))
                x[batch, place] = found
                previous = padded(found)
        return x.reshape(num, *self._shape)
