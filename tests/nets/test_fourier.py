"""Fourier features: what a network is given beside its input."""

import jax
import numpy as np
from flax import linen as nn

from diffjax.nets.fourier import FourierFeatures


class Seen(nn.Module):
    """Returns what it is given."""

    @nn.compact
    def __call__(self, x, time):
        return x, time


def test_the_waves_of_levels_are_those_of_the_paper_and_show_the_lowest_bit():
    for levels, n in ((17, (3, 4)), (257, (7, 8))):  # 2^-3 and 2^-7 apart
        x = np.linspace(-1, 1, levels, dtype=np.float32)[None, :, None, None]
        network = FourierFeatures(Seen(), tuple((levels - 1) / period for period in (2, 1)))
        off = np.float32(0.2 * 2 / (levels - 1))
        for shift in (0, off):
            seen, time = jax.jit(lambda x, network=network: network.apply({}, x, 5.0))(x + shift)
            angles = [2.0**k * np.pi * (x + shift).astype(np.float64) for k in n]
            waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
            np.testing.assert_allclose(seen, np.concatenate([x + shift, *waves], -1), atol=3e-4)
            assert time == 5.0
        # The cosine of two levels' length is +1 and -1 in turn, that of one level's is the same at every level.
        seen, _ = network.apply({}, x, 0.0)
        np.testing.assert_allclose(seen[0, :, 0, 2], (-1.0) ** np.arange(levels), atol=1e-3)
        np.testing.assert_allclose(seen[0, :, 0, 4], 1.0, atol=1e-3)
