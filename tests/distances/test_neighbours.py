"""Neighbours against loops over all pairs, against expectations that hold for every law, and what each measure sees."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from sklearn.neighbors import NearestNeighbors

from diffjax.distances import (
    density_coverage,
    expected_coverage,
    nearest_training,
    neighbours,
    precision_recall,
    sliced_wasserstein,
)
from diffjax.errors import InputError


def balls(x, k):
    """Radius of each point's ball, by scikit-learn's exact neighbours."""
    return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]


@pytest.fixture
def few(monkeypatch):
    """Blocks of a few rows."""
    monkeypatch.setattr("diffjax.distances.features.BLOCK", 200)


def test_against_all_pairs(few):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 3)), rng.normal(0.7, 1.0, size=(50, 3))
    far = scipy.spatial.distance.cdist(a, b)
    inside, reached = far <= balls(b, 3), far <= balls(a, 3)[:, None]
    assert precision_recall(a, b) == (inside.any(1).mean(), reached.any(0).mean())
    assert precision_recall(b, a) == precision_recall(a, b)[::-1]
    inside = far <= balls(b, 5)
    np.testing.assert_allclose(density_coverage(a, b), (inside.sum(1).mean() / 5, inside.any(0).mean()))
    for size in (50, 1, 7):
        nearest = neighbours.Nearest(a, 4)
        for first in range(0, 50, size):
            nearest.add(b[first : first + size])
        np.testing.assert_array_equal(nearest.rows, np.argsort(far, 1)[:, :4])
        np.testing.assert_allclose(nearest.squares, np.sort(far, 1)[:, :4] ** 2, rtol=1e-10)


def test_equal_sets():
    x = np.random.default_rng(0).normal(size=(200, 5))
    assert precision_recall(x, x[::-1]) == (1.0, 1.0)
    assert density_coverage(x, x).coverage == 1.0


@pytest.mark.parametrize("dim", [1, 8])
def test_equal_laws_have_density_one_and_the_coverage_of_theory(dim):
    rng = np.random.default_rng(dim)
    found = np.array([density_coverage(rng.normal(size=(80, dim)), rng.normal(size=(60, dim)), 3) for _ in range(300)])
    error = found.std(0, ddof=1) / 300**0.5
    assert abs(found[:, 0].mean() - 1.0) < 5 * error[0]
    assert abs(found[:, 1].mean() - expected_coverage(80, 60, 3)) < 5 * error[1]


def test_a_dropped_mode_is_missed_by_recall_and_coverage_alone():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(600, 2)) + 10.0 * rng.integers(3, size=(600, 1))
    samples = rng.normal(size=(600, 2)) + 10.0 * rng.integers(2, size=(600, 1))  # without the third
    whole = rng.normal(size=(600, 2)) + 10.0 * rng.integers(3, size=(600, 1))
    third = (data[:, 0] > 15).mean()
    before, after = precision_recall(whole, data), precision_recall(samples, data)
    assert after.precision > 0.9 < before.precision
    assert abs(after.recall - before.recall + third) < 0.05
    coverage = density_coverage(samples, data).coverage
    assert abs(coverage - density_coverage(whole, data).coverage + third) < 0.05


def test_copies_of_training_examples_are_seen_and_held_out_ones_are_not():
    rng = np.random.default_rng(0)
    training, held_out, honest = rng.normal(size=(3, 400, 16))
    found = nearest_training(honest, training, held_out)
    assert found.copies == found.held_out_copies == found.duplicates == 0.0
    assert abs(found.z) < 5
    copied = np.concatenate([honest[:300], training[:100] + 0.01 * rng.normal(size=(100, 16))])
    found = nearest_training(copied, training, held_out)
    assert found.copies == 0.25 and found.held_out_copies == 0.0 and found.duplicates == 0.0
    assert found.z > 5
    assert nearest_training(training[:50], training, held_out).copies == 1.0


def test_closer_is_mann_and_whitney_s():
    rng = np.random.default_rng(1)
    training, held_out = rng.normal(size=(2, 100, 2))
    samples = training[rng.integers(100, size=80)] + 0.1 * rng.normal(size=(80, 2))  # near, and no copies
    found = nearest_training(samples, training, held_out)
    ours, theirs = (scipy.spatial.distance.cdist(x, training).min(1) for x in (samples, held_out))
    test = scipy.stats.mannwhitneyu(theirs, ours, alternative="greater", use_continuity=False, method="asymptotic")
    np.testing.assert_allclose(found.closer, test.statistic / (80 * 100))
    np.testing.assert_allclose(scipy.stats.norm.sf(found.z), test.pvalue, rtol=1e-6)
    assert found.z > 5


def test_duplicates_among_samples_are_seen():
    rng = np.random.default_rng(0)
    training, held_out, samples = rng.normal(size=(3, 300, 16))
    samples[100:150] = samples[:50]  # 100 samples have a twin
    found = nearest_training(samples, training, held_out)
    assert found.duplicates == 1 / 3 and found.copies == 0.0
    three = np.concatenate([samples[150:], samples[150:200], samples[150:200]])  # and triplets
    np.testing.assert_allclose(nearest_training(three, training, held_out).duplicates, 150 / 250)


def test_sliced_wasserstein_of_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6_000, 3)), rng.normal(size=(5_000, 3))
    shift = np.array([1.0, 2.0, 0.0])
    found = sliced_wasserstein(a, b + shift)
    assert abs(found.value - (5 / 3) ** 0.5) < 5 * found.standard_error
    scaled = sliced_wasserstein(a, 3.0 * b)  # every direction: |3 - 1|
    assert abs(scaled.value - 2.0) < 0.05
    # One dimension, sets of different size: scipy's W1 of the same sets bounds it, and equal sets have none.
    one = sliced_wasserstein(a[:300, :1], b[:200, :1] + 1.0)
    assert one.value >= scipy.stats.wasserstein_distance(a[:300, 0], b[:200, 0] + 1.0)
    assert sliced_wasserstein(a[:300], np.repeat(a[:300], 2, 0)).value < 1e-6


def test_bad_input():
    x = np.zeros((5, 2))
    with pytest.raises(InputError, match="k = 5 neighbours of 5 samples"):
        density_coverage(x, x)
