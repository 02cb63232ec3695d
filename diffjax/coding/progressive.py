"""A progressive code: x_{t_T}, ..., x_{t_1} and x_0 one after the other, so that every prefix of a file is an image.

Ho et al. (2020, section 4.3) say what a receiver of x_T .. x_t should pay, if draws from q could be told at the
price of their Kullback-Leibler divergence (`bounds.rate_distortion`). Here they are told by `relative.choose`: each
step is one integer an example, and the last segment has the levels themselves given x_{t_1}, so that the whole file is
lossless. What an integer costs beyond the divergence, log2(KL + 1) and some bits, does not shrink with the step. So few
large steps are better than many small ones, up to as many candidates as one can draw: 2^KL.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from diffjax.bounds import Decoder
from diffjax.coding import relative
from diffjax.coding.codec import BATCH, check_levels
from diffjax.coding.stack import Stack, categorical
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian, Variance

EXPONENTS = 1.0 + np.arange(1, 65) / 64  # of the law of an index
SEGMENT = struct.Struct("<BI")


class Received(NamedTuple):
    """image: x̂_0, floats in [-1, 1]; the levels, scaled, where `whole`. steps: how many segments were there."""

    image: Float[np.ndarray, "num *shape"]
    steps: int
    whole: bool


class Progressive:
    """Args as of `coding.Chain`; `times` are those of a few merged steps, from 0 to 1.

    seed: of the randomness that both sides share. candidates: how many are tried, a multiple of 512.
    """

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
        seed: int = 0,
        candidates: int = 2**14,
    ):
        self._process, self._params, self._shape, self._levels = process, params, shape, levels
        self._times, self._candidates, self._seed = np.sort(np.asarray(times, np.float32)), candidates, seed
        self.num_segments = len(self._times) - 1

        def law(params: Any, xt: Array, s: Array, t: Array) -> tuple[Normal, Array]:
            """p(x_s | x_t), and x̂_0."""
            s, t = (jnp.broadcast_to(a, xt.shape[:1]) for a in (s, t))
            prediction = predict(params)(xt, t)
            p = process.reverse(prediction, xt, s, t, variance)
            return Normal(p.mean, jnp.broadcast_to(p.variance, xt.shape)), convert(prediction, "x0", process, xt, t)

        def table(params: Any, xt: Array, t: Array) -> Array:
            p, _ = law(params, xt, jnp.zeros_like(t), t)
            return jax.vmap(decoder(p.mean, p.variance).log_prob, out_axes=-1)(jnp.linspace(-1.0, 1.0, levels))

        def posterior(x0: Array, xt: Array, s: Array, t: Array) -> Normal:
            s, t = (jnp.broadcast_to(a, xt.shape[:1]) for a in (s, t))
            q = process.posterior(x0, xt, s, t)
            return Normal(q.mean, jnp.broadcast_to(q.variance, xt.shape))

        self._law, self._table, self._posterior = jax.jit(law), jax.jit(table), jax.jit(posterior)

    def encode(self, levels: UInt8[np.ndarray, "num *shape"]) -> bytes:
        """A file of num_segments segments. Every prefix of whole segments can be decoded.

        Raises:
            InputError: if there are more examples than one batch, or they are not levels of this shape.
        """
        check_levels(levels, self._shape, self._levels)
        num = len(levels)
        x0 = self._padded(levels.astype(np.float32) * (2.0 / (self._levels - 1)) - 1.0)
        xt, data = self._start(), [struct.pack("<I", num)]
        for i in range(self.num_segments, 1, -1):
            s, t = self._times[i - 1], self._times[i]
            p, _ = self._law(self._params, xt, s, t)
            keys, q = self._keys(i), self._posterior(x0, xt, s, t)
            index = np.asarray(relative.choose(keys[:num], _first(q, num), _first(p, num), self._candidates))
            best = relative.best_exponent(index, self._candidates, EXPONENTS)
            stack = Stack()
            for k in index[::-1]:
                stack.push(relative.power_law(EXPONENTS[best], self._candidates, 1), np.array([k]))
            words = stack.words()
            data += [SEGMENT.pack(best, len(words)), words.astype("<u4").tobytes()]
            xt = relative.candidate(keys, p, self._padded(index))
        stack = Stack()
        stack.push(categorical(np.asarray(self._table(self._params, xt, self._times[1]))[:num]), levels)
        words = stack.words()
        return b"".join([*data, SEGMENT.pack(0, len(words)), words.astype("<u4").tobytes()])

    def decode(self, data: bytes) -> Received:
        """The image of as many whole segments as there are.

        Raises:
            InputError: if there is not even the number of examples.
        """
        if len(data) < 4:
            raise InputError(f"a progressive file begins with the number of examples, in 4 bytes, but has {len(data)}")
        (num,), segments = struct.unpack("<I", data[:4]), _segments(data[4:])
        xt, steps = self._start(), min(len(segments), self.num_segments)
        for i, (best, words) in zip(range(self.num_segments, 1, -1), segments, strict=False):
            p, _ = self._law(self._params, xt, self._times[i - 1], self._times[i])
            stack, law = Stack(words), relative.power_law(EXPONENTS[best], self._candidates, 1)
            index = np.concatenate([stack.pop(law) for _ in range(num)])
            xt = relative.candidate(self._keys(i), p, self._padded(index))
        if steps == self.num_segments:
            law = categorical(np.asarray(self._table(self._params, xt, self._times[1]))[:num])
            levels = Stack(segments[steps - 1][1]).pop(law).reshape(num, *self._shape)
            return Received(levels * np.float32(2.0 / (self._levels - 1)) - 1.0, steps, True)
        t = self._times[self.num_segments - steps]
        return Received(np.asarray(self._law(self._params, xt, np.float32(0), t)[1])[:num], steps, False)

    def _start(self) -> Array:
        """x_T of the shared randomness, drawn from the prior."""
        prior = self._process.prior((BATCH, *self._shape))
        return prior.sample(jax.random.fold_in(jax.random.key(self._seed), 0))

    def _keys(self, i: int) -> Array:
        return jax.random.split(jax.random.fold_in(jax.random.key(self._seed), i), BATCH)

    def _padded(self, x: np.ndarray) -> np.ndarray:
        if len(x) > BATCH:
            raise InputError(f"a progressive file has at most {BATCH} examples, not {len(x)}: write several")
        return np.concatenate([x, np.zeros((BATCH - len(x), *x.shape[1:]), x.dtype)])


def prefixes(data: bytes) -> list[bytes]:
    """All prefixes of whole segments, from none to all."""
    ends, at = [4], 4
    for _, words in _segments(data[4:]):
        at += SEGMENT.size + 4 * len(words)
        ends.append(at)
    return [data[:end] for end in ends]


def _segments(data: bytes) -> list[tuple[int, np.ndarray]]:
    """The exponents and words of whole segments."""
    found: list[tuple[int, np.ndarray]] = []
    at = 0
    while at + SEGMENT.size <= len(data):
        best, count = SEGMENT.unpack(data[at : at + SEGMENT.size])
        at += SEGMENT.size
        if at + 4 * count > len(data) or best >= len(EXPONENTS):
            break
        found.append((best, np.frombuffer(data, "<u4", count, at).astype(np.uint32)))
        at += 4 * count
    return found


def _first(law: Normal, num: int) -> Normal:
    return Normal(law.mean[:num], law.variance[:num])
