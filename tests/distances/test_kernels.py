"""Kernel distances against their definition, and against their expectations for Gaussians by repetition."""

import numpy as np
import pytest

import diffjax as dj
from diffjax.distances import energy_distance, kernel_distance, kernels, maximum_mean_discrepancy
from diffjax.errors import InputError

SHIFT = 0.6
DISTANCES = {
    "polynomial": (kernel_distance, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3),
    "gaussian": (
        lambda a, b: maximum_mean_discrepancy(a, b, [1.5]),
        lambda x, y: np.exp(-((x[:, None] - y) ** 2).sum(-1) / (2 * 1.5**2)),
    ),
    "energy": (energy_distance, lambda x, y: -np.sqrt(((x[:, None] - y) ** 2).sum(-1))),
}


def plain(kernel, a, b):
    """The U-statistic as its definition has it."""
    aa, bb = (kernel(x, x)[~np.eye(len(x), dtype=bool)].mean() for x in (a, b))
    return aa + bb - 2 * kernel(a, b).mean()


@pytest.mark.parametrize("name", DISTANCES)
def test_value_and_error_are_those_of_the_definition(name, monkeypatch):
    measure, kernel = DISTANCES[name]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(13, 3)), rng.normal(0.5, 1.5, size=(9, 3))
    monkeypatch.setattr(kernels, "BLOCK", 30)  # several blocks
    monkeypatch.setattr("diffjax.distances.features.BLOCK", 30)
    found = measure(a, b)
    np.testing.assert_allclose(found.value, plain(kernel, a, b), rtol=1e-10, atol=1e-12)
    left = [np.array([plain(kernel, np.delete(a, i, 0), b) for i in range(13)])]
    left.append(np.array([plain(kernel, a, np.delete(b, i, 0)) for i in range(9)]))
    error = np.sqrt(sum((len(x) - 1) * x.var() for x in left))
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-10)
    # The order of the examples, and which side is which, does not matter.
    np.testing.assert_allclose(measure(b[::-1], a[rng.permutation(13)]), found, rtol=1e-10)


def exact(shift, d=2, h=1.5):
    """Of N(0, I) and N((shift, 0), I): E k by the moments of x·y, and by the integral of a Gaussian."""

    # x·y with x ~ N(m, I), y ~ N(n, I) independent has, given y, the law N(m·y, |y|²).
    def cubic(m, n):
        first = m @ n
        second = d + m @ m + n @ n + first**2
        third = first**3 + 3 * first * (m @ m + n @ n) + 3 * first * (d + 2)
        return third / d**3 + 3 * second / d**2 + 3 * first / d + 1

    zero, moved = np.zeros(d), np.array([shift] + [0.0] * (d - 1))
    polynomial = cubic(zero, zero) + cubic(moved, moved) - 2 * cubic(zero, moved)
    alike = (h**2 / (h**2 + 2)) ** (d / 2)
    return polynomial, 2 * alike * (1 - np.exp(-(shift**2) / (2 * (h**2 + 2))))


@pytest.mark.parametrize("shift", [0.0, SHIFT])
def test_gaussians_by_repetition(shift):
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=(60, 2)), rng.normal(size=(80, 2)) + np.array([shift, 0])) for _ in range(400)]
    for name, want in zip(("polynomial", "gaussian"), exact(shift), strict=True):
        found = np.array([DISTANCES[name][0](a, b) for a, b in pairs])
        error = found[:, 0].std(ddof=1) / 20
        assert abs(found[:, 0].mean() - want) < 5 * error, name
        # The jackknife is on the safe side; by at most √2 where the laws are equal.
        ratio = np.sqrt((found[:, 1] ** 2).mean()) / found[:, 0].std(ddof=1)
        assert 0.85 < ratio < 1.6, name
        if shift:
            assert want > 5 * error


def test_mean_of_bandwidths_and_the_median():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 2)), rng.normal(size=(40, 2)) * 3
    both = [maximum_mean_discrepancy(a, b, [h]).value for h in (0.5, 2.0)]
    np.testing.assert_allclose(maximum_mean_discrepancy(a, b, [0.5, 2.0]).value, np.mean(both), rtol=1e-12)
    pairs = [np.linalg.norm(x - y) for i, x in enumerate(b) for y in b[:i]]
    np.testing.assert_allclose(kernels.median_distance(b), np.median(pairs), rtol=1e-10)
    h = np.median(pairs) * np.array([0.25, 0.5, 1, 2, 4])
    np.testing.assert_allclose(maximum_mean_discrepancy(a, b), maximum_mean_discrepancy(a, b, h), rtol=1e-10)


def test_an_estimate_is_a_number_with_an_error():
    x = np.random.default_rng(0).normal(size=(2, 30, 4, 2)).astype(np.float32)
    found = dj.evaluation.kernel_distance(*x)
    assert float(found) == found.value == found[0] and found.standard_error > 0
    with pytest.raises(InputError, match="at least 2 examples"):
        kernel_distance(x[0, :1], x[1])
