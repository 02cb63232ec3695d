"""PixelCNN++ (Salimans et al. 2017): logits of a pixel from the pixels above it and to its left.

Two streams of features have the size of the image. v at (r, c) sees the rows above r; h at (r, c) sees those and the
pixels left of c in row r. Convolutions look at two rows:

    v: kernel 2x3 over (r - 1, c - 1) .. (r, c + 1) of v        the input of v is the image, moved down by a row
    h: kernel 2x2 over (r - 1, c - 1) .. (r, c) of h            the input of h is the image moved right, and v

A block is x + a σ(b),  (a, b) = conv(f(conv(f(x)) + W f(skip))),  f(x) = elu([x, -x]). The second half of the blocks
gets the first half's outputs as skips, in reverse order. All layers keep the resolution; the paper halves it twice.

The output is a mixture of discretised logistics over the K levels, l = 2k/(K - 1) - 1:

    P(k) = Σ_m π_m [σ((l + w/2 - μ_m)/s_m) - σ((l - w/2 - μ_m)/s_m)],  the outermost bins open

For several channels, μ of a channel is linear in the levels of the channels before it in the pixel.

A step computes one pixel. It keeps two rows of the input of every convolution: v is computed for a whole row when the
row begins, h pixel by pixel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from diffjax.errors import InputError

ZERO = nn.initializers.zeros
Rows = tuple[Array, Array]  # the row above and this row, both (batch, width, features)


def both_signs(x: Array) -> Array:
    """elu([x, -x])."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


class Causal(nn.Module):
    """A convolution over two rows: 2x3 centred (`wide`), or 2x2 towards the left."""

    inputs: int
    features: int
    wide: bool
    scale: float = 1.0

    def setup(self) -> None:
        shape = (2, 3 if self.wide else 2, self.inputs, self.features)
        init = nn.initializers.variance_scaling(self.scale, "fan_avg", "uniform")
        self.kernel = self.param("kernel", init, shape)
        self.bias = self.param("bias", ZERO, (self.features,))

    def __call__(self, x: Array) -> Array:
        """A whole image (batch, height, width, inputs)."""
        padding = ((1, 0), (1, 1) if self.wide else (1, 0))
        return self._convolved(x, padding)

    def row(self, rows: Rows) -> Array:
        """One row (batch, width, features), from two rows of the input."""
        padding = ((0, 0), (1, 1) if self.wide else (1, 0))
        return self._convolved(jnp.stack(rows, axis=1), padding)[:, 0]

    def pixel(self, rows: Rows, column: Array) -> Array:
        """One pixel (batch, features) of the narrow kernel, from two rows of the input."""
        patch = jnp.stack([jnp.pad(row, ((0, 0), (1, 0), (0, 0))) for row in rows], axis=1)
        patch = jax.lax.dynamic_slice_in_dim(patch, column, 2, axis=2)
        return jnp.einsum("bijc,ijcf->bf", patch, self.kernel) + self.bias

    def _convolved(self, x: Array, padding: tuple) -> Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, self.kernel, (1, 1), padding, dimension_numbers=layout) + self.bias


class Gated(nn.Module):
    """A block of one stream. `aside`: whether something is added between its convolutions."""

    features: int
    wide: bool
    aside: bool

    def setup(self) -> None:
        self.first = Causal(2 * self.features, self.features, self.wide)
        self.second = Causal(2 * self.features, 2 * self.features, self.wide, 0.1)
        if self.aside:
            self.skip = nn.Dense(self.features)

    def __call__(self, x: Array, aside: Array | None = None) -> Array:
        """A whole image."""
        return self._gate(x, self.second(self._between(self.first(both_signs(x)), aside)))

    def row(self, cache: tuple[Rows, Rows], x: Array, aside: Array | None = None) -> tuple[tuple[Rows, Rows], Array]:
        """A new row x (batch, width, features) of the wide stream."""
        outer = (cache[0][1], both_signs(x))
        inner = (cache[1][1], self._between(self.first.row(outer), aside))
        return (outer, inner), self._gate(x, self.second.row(inner))

    def pixel(
        self, cache: tuple[Rows, Rows], x: Array, column: Array, aside: Array | None = None
    ) -> tuple[tuple[Rows, Rows], Array]:
        """A new pixel x (batch, features) of the narrow stream."""
        outer = _put(cache[0], both_signs(x), column)
        inner = _put(cache[1], self._between(self.first.pixel(outer, column), aside), column)
        return (outer, inner), self._gate(x, self.second.pixel(inner, column))

    def _between(self, h: Array, aside: Array | None) -> Array:
        return both_signs(h if aside is None else h + self.skip(both_signs(aside)))

    def _gate(self, x: Array, y: Array) -> Array:
        a, b = jnp.split(y, 2, axis=-1)
        return x + a * nn.sigmoid(b)


def _put(rows: Rows, x: Array, column: Array) -> Rows:
    """x (batch, features) into the lower row; at the first column the rows move up."""
    above = jnp.where(column == 0, rows[1], rows[0])
    here = jnp.where(column == 0, 0.0, rows[1])
    return above, jax.lax.dynamic_update_slice_in_dim(here, x[:, None], column, axis=1)


class State(NamedTuple):
    """What a step keeps. All rows are (batch, width, features).

    image: three rows of the image, the last one of which is being drawn, with a channel more that is 1 where a pixel is
    vertical, horizontal: for each block two rows of the input of each of its convolutions
    outputs: for each block the row of v behind it, and before the first block
    numbers: (batch, out), what the last layer gave for this pixel
    """

    image: tuple[Array, Array, Array]
    vertical: list[tuple[Rows, Rows]]
    horizontal: list[tuple[Rows, Rows]]
    outputs: list[Array]
    numbers: Array


class PixelCNN(nn.Module):
    """Logits of levels (batch, places) -> (batch, places, num_classes). Places are those of `shape`, in raster order.

    Attributes:
      shape: (height, width, channels) of the images.
      num_classes: K levels.
      features: of each stream.
      depth: blocks of each half.
      mixtures: logistics of a mixture; 0 for a free number for each class, of images with one channel.
    """

    shape: tuple[int, int, int]
    num_classes: int
    features: int = 32
    depth: int = 3
    mixtures: int = 5

    def setup(self) -> None:
        channels = self.shape[2]
        if channels > 1 and not self.mixtures:
            raise InputError("net.mixtures=0 cannot pass from one channel of a pixel to the next: give mixtures")
        self.down = Causal(channels + 1, self.features, True)
        self.right = Causal(channels + 1, self.features, False)
        self.across = nn.Dense(self.features)
        self.condition = nn.Dense(self.features)
        second = [i >= self.depth for i in range(2 * self.depth)]
        self.vertical = [Gated(self.features, True, later) for later in second]
        self.horizontal = [Gated(self.features, False, True) for _ in second]
        self.out = nn.Dense(self.out_features(), kernel_init=nn.initializers.normal(0.01))

    def out_features(self) -> int:
        """The numbers of a pixel: of each mixture a weight, means, scales, and slopes between channels."""
        channels = self.shape[2]
        each = 1 + 2 * channels + channels * (channels - 1) // 2
        return self.mixtures * each if self.mixtures else self.num_classes

    def __call__(
        self, x: Int[Array, "batch places"], condition: Float[Array, "batch height width features"] | None = None
    ) -> Float[Array, "batch places classes"]:
        """The logits of every place d at [:, d].

        condition: features of each pixel, known from the beginning.
        """
        image = self._levels(x).reshape(len(x), *self.shape)
        marked = jnp.concatenate([image, jnp.ones_like(image[..., :1])], axis=-1)
        v = self.down(jnp.pad(marked, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])
        if condition is not None:
            v = v + self.condition(condition)
        h = self.right(_moved_right(marked)) + self.across(v)
        kept: list[tuple[Array, Array]] = []
        for i, (vertical, horizontal) in enumerate(zip(self.vertical, self.horizontal, strict=True)):
            if i < self.depth:
                v = vertical(v)
                h = horizontal(h, v)
                kept.append((v, h))
            else:
                skip_v, skip_h = kept.pop()
                v = vertical(v, skip_v)
                h = horizontal(h, jnp.concatenate([v, skip_h], axis=-1))
        logits = self._logits(self.out(nn.elu(h)), image)
        return logits.reshape(*x.shape, self.num_classes)

    def start(self, batch: int) -> State:
        """The state before the first place."""
        width, channels = self.shape[1:]

        def zeros(features: int) -> Array:
            return jnp.zeros((batch, width, features))

        caches = [((zeros(2 * self.features),) * 2,) * 2 for _ in self.vertical]
        outputs = [zeros(self.features) for _ in range(len(caches) + 1)]
        return State((zeros(channels + 1),) * 3, caches, caches, outputs, jnp.zeros((batch, self.out_features())))

    def enter(self, state: State, i: Int[Array, ""], previous: Int[Array, " batch"]) -> State:
        """The state with the class of place i - 1. At the first place of a row the rows move up."""
        _, width, channels = self.shape
        pixel, channel = (i - 1) // channels, (i - 1) % channels
        column, row = pixel % width, state.image[2]
        row = row.at[:, column, channel].set(self._levels(previous)).at[:, column, channels].set(1.0)
        row = jnp.where(i > 0, row, state.image[2])
        new = (i % (width * channels) == 0) & (i > 0)
        above, here = jnp.where(new, row, state.image[1]), jnp.where(new, 0.0, row)
        return state._replace(image=(jnp.where(new, state.image[1], state.image[0]), above, here))

    def new_row(self, state: State, condition: Float[Array, "batch width features"] | None = None) -> State:
        """The vertical stream of a row that begins."""
        v = self.down.row(state.image[:2])
        if condition is not None:
            v = v + self.condition(condition)
        outputs, caches = [v], []
        for i, (block, cache) in enumerate(zip(self.vertical, state.vertical, strict=True)):
            skip = outputs[2 * self.depth - i] if i >= self.depth else None
            cache, v = block.row(cache, v, skip)
            outputs.append(v)
            caches.append(cache)
        return state._replace(vertical=caches, outputs=outputs)

    def new_pixel(self, state: State, column: Int[Array, ""]) -> State:
        """The horizontal stream of a pixel that begins, and the numbers of the mixture."""
        behind = [output[:, column] for output in state.outputs]
        rows = (_moved_right(state.image[1]), _moved_right(state.image[2]))
        h = self.right.pixel(rows, column) + self.across(behind[0])
        kept: list[Array] = []
        caches = []
        for i, (block, cache) in enumerate(zip(self.horizontal, state.horizontal, strict=True)):
            v = behind[i + 1]
            aside = v if i < self.depth else jnp.concatenate([v, kept.pop()], axis=-1)
            cache, h = block.pixel(cache, h, column, aside)
            caches.append(cache)
            if i < self.depth:
                kept.append(h)
        return state._replace(horizontal=caches, numbers=self.out(nn.elu(h)))

    def read(self, state: State, i: Int[Array, ""]) -> Float[Array, "batch classes"]:
        """The logits of place i, from the numbers of its pixel and the channels before it."""
        _, width, channels = self.shape
        levels = state.image[2][:, (i // channels) % width, :channels]
        return self._logits(state.numbers, levels)[:, i % channels]

    def _levels(self, x: Array) -> Array:
        """Classes as numbers in [-1, 1]."""
        return x.astype(float) * (2.0 / (self.num_classes - 1)) - 1.0

    def _logits(self, numbers: Array, image: Array) -> Array:
        """(..., out) and (..., channels) -> (..., channels, num_classes)."""
        if not self.mixtures:
            return numbers[..., None, :]
        channels, num = self.shape[2], self.mixtures
        numbers = numbers.reshape(*numbers.shape[:-1], num, -1)
        weight, means, scales, slopes = jnp.split(numbers, [1, 1 + channels, 1 + 2 * channels], axis=-1)
        slopes, found = jnp.tanh(slopes), []
        for c in range(channels):
            before = slopes[..., c * (c - 1) // 2 : c * (c + 1) // 2] * image[..., None, :c]
            found.append(_log_bins(means[..., c] + before.sum(-1), scales[..., c], self.num_classes))
        bins = jnp.stack(found, axis=-3)  # (..., channels, mixtures, classes)
        return nn.logsumexp(nn.log_softmax(weight[..., 0])[..., None, :, None] + bins, axis=-2)


def _log_bins(mean: Array, log_scale: Array, num_classes: int) -> Array:
    """log P(k) in nats of a logistic law rounded to the levels 2k/(K - 1) - 1, the end bins open. (..., classes)."""
    half = 1.0 / (num_classes - 1)
    precision = jnp.exp(-jnp.clip(log_scale - 2.0, -7.0, 5.0))[..., None]
    centre = (jnp.linspace(-1.0, 1.0, num_classes) - mean[..., None]) * precision
    last = jnp.arange(num_classes) == num_classes - 1
    upper = jnp.where(last, 0.0, nn.log_sigmoid(centre + half * precision))
    lower = jnp.where(last[::-1], 0.0, nn.log_sigmoid(half * precision - centre))
    inner = jnp.where(last | last[::-1], 0.0, jnp.log(-jnp.expm1(-2.0 * half * precision)))
    return upper + lower + inner


def _moved_right(x: Array) -> Array:
    """The columns (the last axis but one) one place to the right."""
    return jnp.pad(x, (*[(0, 0)] * (x.ndim - 2), (1, 0), (0, 0)))[..., :-1, :]
