"""Encoders and decoders of variational auto-encoders, dense and convolutional, with softplus units.

They map one vector of features to another. The caller decides which distribution has the output as its parameters.
The units are softplus because Hamiltonian dynamics and their gradients need a smooth decoder.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import as_float


class Dense(nn.Module):
    """Softplus layers of `features` units, then a linear layer of `out` units. With `zero`, its weights start at 0."""

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
    """5x5 convolutions that halve the image, a dense layer and a linear layer, as in Salimans et al. 2015.

    Attributes:
        channels: of each convolution.
        units: of the dense layer.
        out: units of the linear layer.
    """

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
    """The mirror image of `ConvEncoder`: transposed 4x4 convolutions double the size where the encoder halves it.

    Attributes:
        channels: of each convolution, in the order of the encoder.
        units: of the dense layer.
        shape: (height, width, channels) of the output.
    """

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
    """A transposed 4x4 convolution of stride 2: on each axis, pixel i adds to the pixels 2i - 1 .. 2i + 2.

    It is written as a matrix product and sums. Leapfrog steps need second derivatives, and those of a convolution take
    six times as long on a CPU.
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
    """Even and odd pixels of the output, in a new axis. Each is the sum of what two neighbouring input pixels add."""
    lead = jnp.zeros_like(jax.lax.slice_in_dim(parts[0], 0, 1, axis=axis))
    size = parts[0].shape[axis]
    later = jnp.concatenate([lead, jax.lax.slice_in_dim(parts[3], 0, size - 1, axis=axis)], axis)
    earlier = jnp.concatenate([jax.lax.slice_in_dim(parts[0], 1, size, axis=axis), lead], axis)
    return jnp.stack([parts[1] + later, parts[2] + earlier], axis)
