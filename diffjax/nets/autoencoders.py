"""Encoders and decoders of variational auto-encoders, dense and convolutional, with softplus units.

They map one vector of features to another, whatever these are the parameters of. Softplus, because Hamiltonian dynamics
and their gradients need the decoder to be smooth.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import as_float


class Dense(nn.Module):
    """Layers of `features` units, then `out` linear ones; `zero` starts the last layer at 0."""

    features: Sequence[int]
    out: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch out"]:
        x = as_float(x)
        for units in self.features:
            x = nn.softplus(nn.Dense(units)(x))
        return nn.Dense(self.out, kernel_init=nn.initializers.zeros if self.zero else nn.linear.default_kernel_init)(x)


class ConvEncoder(nn.Module):
    """5x5 convolutions that halve the image, a dense layer and `out` linear units, as in Salimans et al. 2015."""

    channels: Sequence[int]
    units: int
    out: int

    @nn.compact
    def __call__(self, image: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch out"]:
        h = as_float(image)
        for channels in self.channels:
            h = nn.softplus(nn.Conv(channels, (5, 5), strides=2)(h))
        h = nn.softplus(nn.Dense(self.units)(h.reshape(*h.shape[:-3], -1)))
        return nn.Dense(self.out)(h)


class ConvDecoder(nn.Module):
    """`ConvEncoder` upside down: its sizes, with transposed 4x4 convolutions that double where its halve."""

    channels: Sequence[int]
    units: int
    shape: Sequence[int]

    @nn.compact
    def __call__(self, z: Float[Array, "*batch dim"]) -> Float[Array, "*batch height width channels"]:
        height, width, out = self.shape
        sizes = [(height, width)]
        for _ in self.channels:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        h = nn.softplus(nn.Dense(self.units)(as_float(z)))
        h = nn.Dense(sizes[-1][0] * sizes[-1][1] * self.channels[-1])(h)
        h = h.reshape(*h.shape[:-1], *sizes[-1], self.channels[-1])
        for size, channels in zip(sizes[-2::-1], [*self.channels[-2::-1], out], strict=True):
            h = Doubling(channels)(nn.softplus(h))[..., : size[0], : size[1], :]
        return h


class Doubling(nn.Module):
    """A transposed 4x4 convolution of stride 2: pixel i adds to the pixels 2i - 1 .. 2i + 2 of each axis.

    As a matrix product and sums: the second derivatives of a convolution, which leapfrog steps need, take six times as
    long on a CPU.
    """

    channels: int

    @nn.compact
    def __call__(self, h: Float[Array, "*batch height width in"]) -> Float[Array, "*batch height*2 width*2 channels"]:
        *batch, height, width, _ = h.shape
        y = nn.Dense(16 * self.channels)(h).reshape(*batch, height, width, 4, 4, self.channels)
        y = _overlap([y[..., i, :, :] for i in range(4)], -4)  # (*batch, height, 2, width, 4, channels)
        y = _overlap([y[..., i, :] for i in range(4)], -2)
        return y.reshape(*batch, 2 * height, 2 * width, self.channels)


def _overlap(parts: list[Array], axis: int) -> Array:
    """Even pixels and odd ones, side by side in a new axis: what each place gives to itself and to the next."""
    lead = jnp.zeros_like(jax.lax.slice_in_dim(parts[0], 0, 1, axis=axis))
    size = parts[0].shape[axis]
    later = jnp.concatenate([lead, jax.lax.slice_in_dim(parts[3], 0, size - 1, axis=axis)], axis)
    earlier = jnp.concatenate([jax.lax.slice_in_dim(parts[0], 1, size, axis=axis), lead], axis)
    return jnp.stack([parts[1] + later, parts[2] + earlier], axis)
