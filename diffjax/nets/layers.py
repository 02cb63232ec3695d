"""Layers that flax lacks, or that are faster here than in flax. Images are (batch, height, width, channels).

sinusoid    [sin(time w), cos(time w)],  w_i = 10000^(-i / (half - 1))                 (Ho et al. 2020, their code)
            or 10000^(-i / half)                                                       (Vaswani et al. 2017, 3.5)
attend      softmax(q k' / sqrt(C)) v                                                  (Vaswani et al. 2017, eq. 1)
GroupNorm   (x - mean) / sqrt(var + epsilon) * scale + bias over positions and a group of channels  (Wu & He 2018)
Upsample    out[2i + a, 2j + b] = sum_pq K_ab[p, q] x[i + a - 1 + p, j + b - 1 + q],  K_ab sums of the 3x3 kernel
"""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from diffjax import randomness
from diffjax.errors import InputError

FAN_AVG = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
ZERO = nn.initializers.zeros_init()


def sinusoid(time: Float[Array, " batch"], size: int, last: bool = True) -> Float[Array, "batch size"]:
    """[sin(time w), cos(time w)], where w falls geometrically from 1 to 1/10000; `last`: w includes 1/10000."""
    half = size // 2
    steps = half - 1 if last else half
    frequencies = jnp.exp(-math.log(10000.0) / steps * jnp.arange(half, dtype=jnp.float32))
    angles = time.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def attend(q: Float[Array, "*b q c"], k: Float[Array, "*b k c"], v: Float[Array, "*b k c"]) -> Float[Array, "*b q c"]:
    """softmax(q k' / sqrt(C)) v, in the arrays' type; the softmax is computed in float32."""
    logits = jnp.einsum("...qc,...kc->...qk", q, k) * q.shape[-1] ** -0.5
    weights = nn.softmax(logits.astype(jnp.float32)).astype(v.dtype)
    return jnp.einsum("...qk,...kc->...qc", weights, v)


def num_groups(channels: int) -> int:
    """The largest number of groups, at most 32, that divides the channels and leaves at least 4 in a group.

    A group of one channel would remove the time and the class that a block has just added to that channel.
    """
    most = min(32, max(1, channels // 4))
    return max(g for g in range(1, most + 1) if channels % g == 0)


class GroupNorm(nn.Module):
    """Normalisation in `groups` groups of channels; 0 means `num_groups(channels)`.

    It computes x a + b with one a and one b per image and channel, from the sums of x and x^2 over positions. On CPU,
    flax's GroupNorm takes 1.6 to 5 times as long, forward and backward.

    Raises:
        InputError: if groups does not divide the channels.
    """

    dtype: DTypeLike
    groups: int = 0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        groups = self.groups or num_groups(channels)
        if channels % groups:
            raise InputError(f"groups is {groups}, which does not divide the {channels} channels of a layer")
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", ZERO, (channels,), jnp.float32)

        def spread(statistic: Array) -> Array:
            """The mean over each group, repeated for each channel of the group."""
            means = statistic.reshape(batch, groups, -1).mean(axis=2)
            return means.repeat(channels // groups, axis=1).reshape(batch, 1, channels)

        y = x.reshape(batch, height * width, channels).astype(jnp.float32)
        mean, square = spread(y.mean(axis=1)), spread((y * y).mean(axis=1))
        variance = jnp.maximum(square - mean * mean, 0.0)  # below 0 by rounding only
        a = scale * lax.rsqrt(variance + self.epsilon)
        return (y * a + (bias - mean * a)).reshape(x.shape).astype(self.dtype)


class Dropout(nn.Module):
    """Zeroes a fraction `rate` and scales up the rest. Without a key (None) it keeps everything.

    Give one key, or one per example. It compares 16 random bits, which cost a third of the usual 32.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, key: PRNGKeyArray | None) -> Array:
        if key is None or self.rate == 0.0:
            return x
        limit = round(self.rate * 2**16)
        layer = zlib.crc32("/".join(self.path).encode())  # every layer has its own draws
        size = x[0].size

        def draw(key: PRNGKeyArray) -> Array:
            words = jax.random.bits(jax.random.fold_in(key, layer), (-(-size // 2),))
            return lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]

        keys = key if randomness.per_example(key) else jax.random.split(key, x.shape[0])
        draws = jax.vmap(draw)(keys).reshape(x.shape)
        return jnp.where(draws < limit, 0, x / (1 - limit / 2**16)).astype(x.dtype)


class Upsample(nn.Module):
    """2x nearest neighbour, then a 3x3 convolution: (batch, H, W, C) -> (batch, 2H, 2W, C).

    A 3x3 window of the large image covers only 2x2 pixels of the small one. So each of the four parities of output
    pixels is a 2x2 convolution of the small image. Its kernel adds up the rows and columns of the 3x3 kernel that meet
    the same pixel. The result is the same, with 2.25 times fewer products.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", FAN_AVG, (3, 3, channels, channels), jnp.float32)
        bias = self.param("bias", ZERO, (channels,), jnp.float32)
        # [parity of the output, row of the 2x2 kernel, row of the 3x3 kernel]
        adds = jnp.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
        kernels = jnp.einsum("apr,bqs,rsio->abpqio", adds, adds, kernel).astype(self.dtype)

        def parity(a: int, b: int) -> Array:
            padding = ((1 - a, a), (1 - b, b))
            return lax.conv_general_dilated(
                x.astype(self.dtype), kernels[a, b], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        rows = [jnp.stack([parity(a, 0), parity(a, 1)], axis=3) for a in (0, 1)]
        return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels) + bias.astype(self.dtype)


def check_condition(x: Array, time: Array, label: Array | None, num_classes: int | None) -> None:
    """Raises `InputError` unless times and labels fit a network of x (batch, ...) and of `num_classes` classes."""
    if time.shape != x.shape[:1]:
        raise InputError(f"time has shape {time.shape}; give one number per example, {x.shape[:1]}")
    if label is None:
        return
    if num_classes is None:
        raise InputError("label is given, but num_classes is None; set num_classes to the number of classes")
    if label.shape != x.shape[:1]:
        raise InputError(f"label has shape {label.shape}; give one class per example, {x.shape[:1]}")
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise InputError(f"label is {label.dtype}; give classes as integers")
    if not isinstance(label, jax.core.Tracer):
        values = np.asarray(label)
        if len(wrong := values[(values < 0) | (values > num_classes)]):
            raise InputError(
                f"label {wrong[0]} is none of the num_classes={num_classes} classes; give a class below {num_classes}, "
                f"or {num_classes} for no class"
            )
