"""Fourier features of the input (Kingma et al. 2021, section 3.4 and appendix C): sin(f π x) and cos(f π x) beside x.

The lowest bits of pixel levels are fast functions of x. A network learns these slowly from x alone. Waves whose length
is one or two levels show them directly. The k levels of [-1, 1] are 2/(k - 1) apart, so a wave of p levels' length has

    f = (k - 1)/p.

The paper has f = 2^n with n = 7 and 8. These are waves of two levels and of one, because its 256 levels are 2^-7 apart.
For 17 levels, the same waves have f = 8 and 16, n = 3 and 4.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class FourierFeatures(nn.Module):
    """Gives a network the waves of its input, too: (x, *rest) -> network([x, sin(f π x), cos(f π x)], *rest).

    Attributes:
      network: its input has 1 + 2 len(frequencies) times the channels of x (the last axis).
      frequencies: the values of f.
    """

    network: nn.Module
    frequencies: Sequence[float]

    @nn.compact
    def __call__(self, x: Float[Array, "batch *event"], *rest: Array | None) -> Array:
        angles = [frequency * jnp.pi * x for frequency in self.frequencies]
        waves = [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]
        return self.network(jnp.concatenate([x, *waves], axis=-1), *rest)
