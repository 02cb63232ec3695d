"""NCSNv2's choice of noise levels and step: brute force, scipy, iterated recursions, and the published values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.spatial
import scipy.stats

from diffjax import schedules
from diffjax.errors import InputError
from diffjax.sde import noise_levels

CIFAR10 = (50.0, 0.01, 232)  # sigma_max, sigma_min, L as published, with T = 5 and ε = 6.2e-6


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_largest_distance(chunk):
    x = 1000.0 + np.random.default_rng(0).normal(size=(30, 4, 5)).astype(np.float32)  # far from 0, as nothing cancels
    want = scipy.spatial.distance.pdist(x.reshape(30, -1).astype(np.float64)).max()
    np.testing.assert_allclose(noise_levels.largest_distance(x, chunk), want, rtol=1e-5)
    np.testing.assert_allclose(noise_levels.largest_distance(jnp.asarray(x), chunk), want, rtol=1e-5)


def test_largest_distance_of_bytes():
    x = np.zeros((3, 2, 2), np.uint8)
    x[2] = 255
    np.testing.assert_allclose(noise_levels.largest_distance(x), 510.0, rtol=1e-6)


@pytest.mark.parametrize("dim", [12, 3072])
def test_overlap_is_a_probability_of_radii(dim):
    # The share of one level's shell, N(√D sigma, ½ sigma²), within ± 3 standard deviations of the shell above.
    high, low = 3.0, 2.8
    above = np.sqrt(dim) * high + 3 * np.sqrt(0.5) * high * np.array([-1, 1])
    want = np.diff(scipy.stats.norm.cdf(above, np.sqrt(dim) * low, np.sqrt(0.5) * low))[0]
    np.testing.assert_allclose(noise_levels.overlap(dim, high, low, 2), want, rtol=1e-9)


# The five data sets of the paper: example size, sigma_max, number of levels; sigma_min is 0.01.
PUBLISHED = [(3072, 50, 232), (12288, 90, 500), (27648, 140, 788), (49152, 190, 1086), (196608, 348, 2311)]


@pytest.mark.parametrize(("dim", "sigma_max", "levels"), PUBLISHED)
def test_published_numbers_of_levels(dim, sigma_max, levels):
    # All have one overlap, 0.567, so "≈ ½" is that; at ½ itself there are some six percent fewer.
    np.testing.assert_allclose(noise_levels.overlap(dim, sigma_max, 0.01, levels), 0.567, atol=1e-3)
    assert abs(noise_levels.num_levels(dim, sigma_max, 0.01, 0.5667) - levels) <= 3
    assert 0.93 < noise_levels.num_levels(dim, sigma_max, 0.01) / levels < 0.96


def test_num_levels_is_the_least():
    n = noise_levels.num_levels(3072, 50.0, 0.01)
    assert n == 220
    root = np.sqrt(2 * 3072)
    ratio = scipy.optimize.brentq(
        lambda r: np.diff(scipy.stats.norm.cdf(root * (r - 1) + 3 * r * np.array([-1, 1])))[0] - 0.5, 1.001, 2
    )
    assert n == np.ceil(1 + np.log(5000) / np.log(ratio))
    assert noise_levels.num_levels(2, 20.0, 0.7) == 2  # in two dimensions any two levels overlap that much


def test_langevin_variance():
    got, h, target = 3.0, 0.2, 0.7
    for n in range(5):
        np.testing.assert_allclose(noise_levels.langevin_variance(3.0, h, target, n), got, rtol=1e-12)
        got = (1 - h / target) ** 2 * got + 2 * h
    fixed = noise_levels.langevin_variance(3.0, h, target, 1000)
    np.testing.assert_allclose(fixed, target / (1 - h / (2 * target)), rtol=1e-12)
    # Proposition 3, as printed, is this over sigma².
    eps, low, ratio, steps = 6.2e-6, 0.01, 1.04, 5
    keep = (1 - eps / low**2) ** 2
    rest = 2 * eps / (low**2 - low**2 * keep)
    printed = keep**steps * (ratio**2 - rest) + rest
    sigma = 3.0
    got = noise_levels.langevin_variance((ratio * sigma) ** 2, eps * sigma**2 / low**2, sigma**2, steps) / sigma**2
    np.testing.assert_allclose(got, printed, rtol=1e-12)


def test_step_size():
    assert float(f"{noise_levels.step_size(*CIFAR10, 5):.1e}") == 6.2e-6
    for high, low, levels, steps in [(*CIFAR10, 5), (1.0, 0.01, 10, 100), (20.0, 0.7, 10, 1), (9.0, 1.0, 2, 3)]:
        ratio = (high / low) ** (1 / (levels - 1))

        def worth(log_eps, ratio=ratio, low=low, steps=steps):
            variance, h = ratio**2, np.exp(log_eps) / low**2
            for _ in range(steps):
                variance = (1 - h) ** 2 * variance + 2 * h
            return variance

        best = scipy.optimize.minimize_scalar(worth, bounds=np.log([1e-5 * low**2, low**2]), method="bounded").fun
        np.testing.assert_allclose(worth(np.log(noise_levels.step_size(high, low, levels, steps))), best, rtol=1e-7)
        assert best > 1  # as near to 1 as it gets is the least


def test_level_times():
    schedule = schedules.ve(0.1, 4.0)
    levels = np.array([4.0, 3.0, 0.5, 0.1])
    times = noise_levels.level_times(schedule, levels.astype(np.float32))
    assert times[0] == 1 and times[-1] == 0
    np.testing.assert_allclose(schedule.sigma(times), levels, rtol=1e-5)
    geometric = np.geomspace(4.0, 0.1, 7)
    np.testing.assert_allclose(noise_levels.level_times(schedule, geometric), np.linspace(1, 0, 7), atol=1e-6)


def test_bad_input():
    with pytest.raises(InputError, match="two examples"):
        noise_levels.largest_distance(np.ones((1, 3)))
    for high, low in [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0), (1.0, -1.0), (np.inf, 1.0)]:
        for call in (
            lambda high, low: noise_levels.overlap(3, high, low, 5),
            lambda high, low: noise_levels.num_levels(3, high, low),
            lambda high, low: noise_levels.step_size(high, low, 5, 3),
        ):
            with pytest.raises(InputError, match="sigma_min"):
                call(high, low)
    with pytest.raises(InputError, match="num_levels"):
        noise_levels.overlap(3, 2.0, 1.0, 1)
    with pytest.raises(InputError, match="num_levels"):
        noise_levels.step_size(2.0, 1.0, 1, 3)
    with pytest.raises(InputError, match="num_steps"):
        noise_levels.step_size(2.0, 1.0, 3, 0)
    with pytest.raises(InputError, match="dim"):
        noise_levels.num_levels(0, 2.0, 1.0)
    for least in (0.0, 0.998, float("nan")):
        with pytest.raises(InputError, match="least"):
            noise_levels.num_levels(3, 2.0, 1.0, least)
    schedule = schedules.ve(0.1, 4.0)
    for levels in ([0.1, 1.0, 4.0], [4.0, 1.0, 1.0, 0.1], [4.0], 4.0, [4.0, np.nan, 0.1]):
        with pytest.raises(InputError, match="decrease strictly"):
            noise_levels.level_times(schedule, levels)
    for levels in ([5.0, 0.1], [4.0, 0.2]):
        with pytest.raises(InputError, match="from the schedule's"):
            noise_levels.level_times(schedule, levels)


def test_levels_and_times_under_jit():
    # langevin_variance takes arrays, traced ones too.
    got = jax.jit(noise_levels.langevin_variance)(jnp.array([1.0, 2.0]), 0.1, 0.5, 2)
    np.testing.assert_allclose(got, [(v * 0.64 + 0.2) * 0.64 + 0.2 for v in (1.0, 2.0)], rtol=1e-6)


def test_what_is_not_finite_or_no_count_is_named():
    with pytest.raises(InputError, match="NaN or infinite"):
        noise_levels.largest_distance(np.array([[0.0], [np.nan], [1.0]]))
    for chunk in (0, 2.5):
        with pytest.raises(InputError, match="chunk must be a positive integer"):
            noise_levels.largest_distance(np.eye(3), chunk)
    with pytest.raises(InputError, match="num_levels must be a positive integer"):
        noise_levels.overlap(3, 2.0, 1.0, 2.5)
    short = noise_levels.step_size(50.0, 0.01, np.int16(232), np.int8(100))  # 2 · 100 is beyond eight bits
    assert short == noise_levels.step_size(50.0, 0.01, 232, 100)
