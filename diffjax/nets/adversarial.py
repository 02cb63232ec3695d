"""A generator of images and a discriminator, of residual convolutions without normalisation over a batch.

Each example is treated by itself: batch normalisation would make a sample depend on its neighbours, and the penalties
of `losses.adversarial` would no longer be those of one example.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.dtypes import as_float
from diffjax.errors import InputError


class Residual(nn.Module):
    """x + conv(leaky(conv(leaky(x)))), with a 1x1 convolution of x where the number of channels changes."""

    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.Conv(self.channels, (3, 3))(nn.leaky_relu(x, 0.2))
        h = nn.Conv(self.channels, (3, 3))(nn.leaky_relu(h, 0.2))
        skip = x if x.shape[-1] == self.channels else nn.Conv(self.channels, (1, 1), use_bias=False)(x)
        return (skip + h) * 0.5**0.5


class Generator(nn.Module):
    """z (batch, dim) -> images (batch, H, W, C) in [-1, 1]. Every entry of `channels` but the last doubles the sides.

    Raises:
        InputError: if the sides of `shape` cannot be halved that often.
    """

    shape: tuple[int, int, int]
    channels: Sequence[int] = (128, 64)

    @nn.compact
    def __call__(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch height width channels"]:
        height, width, out = self.shape
        factor = check_halvings(self.shape, self.channels)
        h = nn.Dense(height // factor * (width // factor) * self.channels[0])(as_float(z))
        h = h.reshape(len(z), height // factor, width // factor, self.channels[0])
        for i, channels in enumerate(self.channels):
            h = h.repeat(2, 1).repeat(2, 2) if i else h
            h = Residual(channels)(h)
        return jnp.tanh(nn.Conv(out, (3, 3))(nn.leaky_relu(h, 0.2)))


class Discriminator(nn.Module):
    """Images (batch, H, W, C) -> a number each, (batch,). Every entry of `channels` but the last halves the sides."""

    channels: Sequence[int] = (64, 128)

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, " batch"]:
        check_halvings(x.shape[1:], self.channels)
        h = nn.Conv(self.channels[0], (3, 3))(as_float(x))
        for i, channels in enumerate(self.channels):
            h = nn.avg_pool(h, (2, 2), (2, 2)) if i else h
            h = Residual(channels)(h)
        h = nn.leaky_relu(h, 0.2)
        h = nn.leaky_relu(nn.Dense(self.channels[-1])(h.reshape(len(x), -1)), 0.2)
        return nn.Dense(1)(h)[:, 0]


class Points(nn.Module):
    """Leaky layers of `features` units between vectors: a generator of points, and with `out=1` a discriminator."""

    features: Sequence[int]
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"]) -> Float[Array, "batch out"]:
        x = as_float(x)
        for units in self.features:
            x = jax.nn.leaky_relu(nn.Dense(units)(x), 0.2)
        return nn.Dense(self.out)(x)


def check_halvings(shape: Sequence[int], channels: Sequence[int]) -> int:
    """2 to the number of halvings.

    Raises:
        InputError: if a side is no multiple of it.
    """
    factor = 2 ** (len(channels) - 1)
    if shape[0] % factor or shape[1] % factor:
        raise InputError(
            f"net.channels={tuple(channels)} halves an image {len(channels) - 1} times, which data.shape={tuple(shape)}"
            " does not allow: give fewer channels"
        )
    return factor
