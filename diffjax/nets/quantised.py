"""Encoders and decoders of VQ-VAEs (van den Oord et al. 2017): strided convolutions and residual blocks, in 1-D or 2-D.

An encoder halves every axis `halvings` times, a decoder doubles it as often. The residual blocks have a 3x3 and a 1x1
convolution, as in the paper.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.dtypes import as_float


class Residual(nn.Module):
    """x + conv1(relu(conv3(relu(x))))."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes = x.ndim - 2
        h = nn.Conv(self.hidden, axes * (3,))(nn.relu(x))
        return x + nn.Conv(x.shape[-1], axes * (1,))(nn.relu(h))


class Encoder(nn.Module):
    """(batch, *axes, channels) -> (batch, *axes / 2^halvings, features)."""

    features: int
    halvings: int
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "batch *axes"]) -> Array:
        x = as_float(x)
        axes = x.ndim - 2
        for _ in range(self.halvings):
            x = nn.relu(nn.Conv(self.features, axes * (4,), axes * (2,))(x))
        x = nn.Conv(self.features, axes * (3,))(x)
        for _ in range(self.blocks):
            x = Residual(self.features // 2)(x)
        return nn.relu(x)


class Decoder(nn.Module):
    """(batch, *axes, channels) -> (batch, *axes * 2^halvings, out)."""

    features: int
    halvings: int
    out: int
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "batch *axes"]) -> Array:
        axes = x.ndim - 2
        x = nn.Conv(self.features, axes * (3,))(x)
        for _ in range(self.blocks):
            x = Residual(self.features // 2)(x)
        x = nn.relu(x)
        for _ in range(self.halvings):
            x = nn.relu(nn.ConvTranspose(self.features, axes * (4,), axes * (2,))(x))
        return nn.Conv(self.out, axes * (3,))(x)


class Levels(nn.Module):
    """All networks of a VQ-VAE with one or two levels of codes.

    Level 0 is the fine one, with the codes next to the data. Of two levels, level 1 has a coarser grid, half the size.

    Attributes:
      features: of every layer.
      dim: of a code's vector.
      halvings: from the data to level 0.
      levels: 1 or 2.
      out: numbers that the decoder gives for a place of the data.
    """

    features: int
    dim: int
    halvings: int
    levels: int
    out: int
    blocks: int = 2

    def setup(self) -> None:
        self.encoder = Encoder(self.features, self.halvings, self.blocks)
        self.decoder = Decoder(self.features, self.halvings, self.out, self.blocks)
        self.to_codes = nn.Dense(self.dim)
        if self.levels == 2:
            self.coarse_encoder = Encoder(self.features, 1, self.blocks)
            self.coarse_decoder = Decoder(self.features, 1, self.features, self.blocks)
            self.to_coarse_codes = nn.Dense(self.dim)

    def encode_coarse(self, x: Array) -> tuple[Array, Array]:
        """What level 0 is made of, and z of level 1 (batch, *grid / 2, dim)."""
        h = self.encoder(x)
        return h, self.to_coarse_codes(self.coarse_encoder(h))

    def encode_fine(self, h: Array, known: Array) -> Array:
        """z of level 0 (batch, *grid, dim), from the encoder's features and what level 1 says of them."""
        return self.to_codes(jnp.concatenate([h, known], axis=-1))

    def encode(self, x: Array) -> Array:
        """z of a single level."""
        return self.to_codes(self.encoder(x))

    def known(self, coarse: Array) -> Array:
        """What level 1's vectors say of level 0: (batch, *grid, features)."""
        return self.coarse_decoder(coarse)

    def decode(self, quantised: Sequence[Array]) -> Array:
        """The numbers of the likelihood, from the vectors of level 0 and, if there is one, of level 1."""
        if self.levels == 1:
            return self.decoder(quantised[0])
        return self.decoder(jnp.concatenate([quantised[0], self.known(quantised[1])], axis=-1))

    def __call__(self, x: Array) -> Array:
        """Goes through all layers once, to make their parameters."""
        if self.levels == 1:
            return self.decode([self.encode(x)])
        h, coarse = self.encode_coarse(x)
        return self.decode([self.encode_fine(h, self.known(coarse)), coarse])
