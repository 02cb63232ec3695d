"""The energy distance against scipy's in one dimension, and against its value for Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffjax.distances import energy_distance
from diffjax.errors import InputError


def test_one_dimension_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), rng.normal(0.5, 2.0, 200)
    # scipy gives the root of the biased estimate, in which every point counts as its own partner.
    biased = scipy.stats.energy_distance(x, y) ** 2
    pairs = [np.abs(a[:, None] - a).sum() for a in (x, y)]
    unbiased = biased - pairs[0] * (1 / (300 * 299) - 1 / 300**2) - pairs[1] * (1 / (200 * 199) - 1 / 200**2)
    np.testing.assert_allclose(energy_distance(jnp.array(x)[:, None], jnp.array(y)[:, None]), unbiased, rtol=1e-4)


def test_gaussians_in_the_plane():
    # ‖N(m, s² I)‖ in two dimensions has the mean of Rice's distribution.
    x, y = jax.random.normal(jax.random.key(0), (2, 10, 1000, 2))
    estimates = np.array([energy_distance(a, b + jnp.array([1.0, 0.0])) for a, b in zip(x, y, strict=True)])
    mean = [scipy.stats.rice.mean(m / np.sqrt(2), scale=np.sqrt(2)) for m in (1.0, 0.0)]
    error = estimates.std(ddof=1) / np.sqrt(10)
    assert abs(estimates.mean() - 2 * (mean[0] - mean[1])) < 5 * error < 0.05


def test_types_and_compilations(compilations):
    x, y = jax.random.normal(jax.random.key(0), (2, 20, 2)).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mean = [np.linalg.norm(a[:, None] - b, axis=-1).sum() for a, b in ((exact * 2)[:2], exact[:1] * 2, exact[1:] * 2)]
    with jax.numpy_dtype_promotion("strict"):
        got = energy_distance(x, y)
        compilations.clear()
        energy_distance(y, x)
    assert not compilations
    np.testing.assert_allclose(got, 2 * mean[0] / 400 - (mean[1] + mean[2]) / 380, rtol=1e-4, atol=5e-6)
    with jax.enable_x64(True):
        assert energy_distance(x.astype(jnp.float32), y).dtype == np.float32


def test_bad_input():
    with pytest.raises(InputError, match="two examples"):
        energy_distance(jnp.zeros((1, 2)), jnp.zeros((5, 2)))
