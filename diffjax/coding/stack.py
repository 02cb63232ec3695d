"""A stack of bits: an ANS coder (Duda et al. 2015) from the package `constriction`, with bits to borrow.

`push` writes symbols on top and `pop` takes them off again, in the order in which they were given. To pop under any
law is also to draw from it, with the stack's bits as the randomness: bits-back coding `borrow`s like this. Where a
stack has too few bits, random words lie below it. They are the same in every process, and those that are never reached
are not written.

A law is a model of `constriction` and its arrays of parameters. It turns floats in float64 into frequencies of 24 bits,
none of them 0, by the same operations in both directions.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import InputError
from diffjax.extras import needs

PRECISION = 24  # bits of a frequency: no symbol costs more
STATE = 2  # words of 32 bits that the coder holds apart


def _constriction() -> Any:
    with needs("codec"):
        import constriction  # a compiled package: its parts are attributes
    return constriction.stream


class Law:
    """What a symbol is coded by: a model of `constriction` and its parameters, one row a symbol."""

    def __init__(self, model: Any, parameters: tuple[np.ndarray, ...], num: int, lowest: np.ndarray | int = 0):
        self.model, self.parameters, self.num, self.lowest = model, parameters, num, lowest


def categorical(log_probs: Float[np.ndarray, "*shape classes"]) -> Law:
    """Classes 0 .. K - 1 of unnormalised log-probabilities.

    Raises:
        InputError: if a row has no finite one, or one that is not a number.
    """
    rows = np.asarray(log_probs, np.float64).reshape(-1, np.shape(log_probs)[-1])
    largest = rows.max(1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError("the model gives log-probabilities that are not finite, so nothing can be coded by it")
    probs = np.exp(rows - largest)
    model = _constriction().model.Categorical(perfect=False)
    return Law(model, (probs / probs.sum(1, keepdims=True),), len(rows))


def uniform(num: int, classes: int) -> Law:
    """`num` symbols, each of 0 .. classes - 1 with the same probability."""
    return Law(_constriction().model.Uniform(classes), (), num)


def normal(mean: Float[np.ndarray, "*shape"], std: Float[np.ndarray, "*shape"], reach: int) -> Law:
    """Integers -reach .. reach: a Normal rounded to them, both ends open."""
    return _normal(np.ravel(mean), np.ravel(std), reach, 0)


def normal_near(mean: Float[np.ndarray, "*shape"], std: Float[np.ndarray, "*shape"], reach: int) -> Law:
    """The same on the integers at most `reach` away from the rounded mean.

    A draw is never further away. Under `normal` each of the integers has a frequency of at least 2^-24, and many of
    these far away would be drawn now and then.
    """
    centre = np.rint(np.ravel(mean))
    return _normal(np.ravel(mean) - centre, np.ravel(std), reach, centre.astype(np.int32))


def _normal(mean: np.ndarray, std: np.ndarray, reach: int, lowest: np.ndarray | int) -> Law:
    mean, std = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(std, np.float64))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise InputError("the model gives means or deviations that are not finite, so nothing can be coded by it")
    model = _constriction().model.QuantizedGaussian(-reach, reach)
    return Law(model, (np.ascontiguousarray(mean), np.ascontiguousarray(std)), len(mean), lowest)


class Stack:
    """Words of 32 bits; without `words` none."""

    def __init__(self, words: np.ndarray | None = None):
        coder = _constriction().stack.AnsCoder
        self._coder = coder() if words is None or not len(words) else coder(np.asarray(words, np.uint32))
        self._supply = np.random.Generator(np.random.PCG64(0))  # numpy keeps the stream of a bit generator for good
        self._below = 0  # random words below
        self._lowest = 0  # how far down the stack has been, where the top of the random words is 0

    def push(self, law: Law, symbols: Int[np.ndarray, "*shape"]) -> None:
        """Writes symbols, so that `pop` under the same law gives them back."""
        self._coder.encode_reverse(np.ravel(symbols).astype(np.int32) - law.lowest, law.model, *law.parameters)

    def pop(self, law: Law) -> Int[np.ndarray, " num"]:
        """Takes off what was pushed under this law."""
        found = self._coder.decode(law.model, *(law.parameters or (law.num,)))
        return np.asarray(found, np.int32) + law.lowest

    def borrow(self, law: Law) -> Int[np.ndarray, " num"]:
        """Draws from a law by the stack's bits, and by random words below where they run out. `push` gives them back.

        The first thing that is borrowed must be borrowed from an empty stack.
        """
        missing = -(-PRECISION * law.num // 32) + STATE - self._coder.num_words()
        if missing > 0:
            # A word of 0 on top would be lost.
            words = self._supply.integers(1, 2**32, max(missing, 1024), dtype=np.uint32)
            whole = np.concatenate([words, self._coder.get_compressed()])
            self._coder = _constriction().stack.AnsCoder(whole)
            self._below += len(words)
            self._lowest = self._lowest if self._below > len(words) else 0
        found = self.pop(law)
        self._lowest = min(self._lowest, self._coder.num_words() - STATE - self._below)
        return found

    def words(self) -> np.ndarray:
        """All words that a decoder needs, (n,) uint32."""
        return np.asarray(self._coder.get_compressed(), np.uint32)[self._below + self._lowest if self._below else 0 :]

    def bits_borrowed(self) -> int:
        """Bits of the random words that were reached: the price of the first images."""
        return -32 * self._lowest
