"""The energy distance against scipy's in one dimension, and against its value for Gaussians."""

import numpy as np
import scipy.stats

from diffjax.distances import energy_distance


def test_one_dimension_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), rng.normal(0.5, 2.0, 200)
    # scipy gives the root of the biased estimate, in which every point counts as its own partner.
    biased = scipy.stats.energy_distance(x, y) ** 2
    pairs = [np.abs(a[:, None] - a).sum() for a in (x, y)]
    unbiased = biased - pairs[0] * (1 / (300 * 299) - 1 / 300**2) - pairs[1] * (1 / (200 * 199) - 1 / 200**2)
    np.testing.assert_allclose(float(energy_distance(x[:, None], y[:, None])), unbiased, rtol=1e-10)


def test_gaussians_in_the_plane():
    # ‖N(m, s² I)‖ in two dimensions has the mean of Rice's distribution.
    x, y = np.random.default_rng(0).standard_normal((2, 10, 1000, 2))
    estimates = np.array([float(energy_distance(a, b + np.array([1.0, 0.0]))) for a, b in zip(x, y, strict=True)])
    mean = [scipy.stats.rice.mean(m / np.sqrt(2), scale=np.sqrt(2)) for m in (1.0, 0.0)]
    error = estimates.std(ddof=1) / np.sqrt(10)
    assert abs(estimates.mean() - 2 * (mean[0] - mean[1])) < 5 * error < 0.06
