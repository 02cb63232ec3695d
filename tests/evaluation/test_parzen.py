"""Parzen windows against scikit-learn's kernel density and against densities that are known."""

import json
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from sklearn.neighbors import KernelDensity

from diffjax.errors import InputError
from diffjax.evaluation import parzen


def kernel_density(samples, h):
    return KernelDensity(bandwidth=h, rtol=1e-10, atol=0).fit(samples)


@pytest.mark.parametrize("n, num, dim, h", [(3000, 2000, 2, 0.1), (50, 30, 784, 0.2), (1, 5, 3, 2.0)])
def test_log_prob_is_scikit_learn_s(n, num, dim, h):
    rng = np.random.default_rng(0)
    samples, x = rng.random((n, dim)) + 100, rng.random((num, dim)) + 100  # far from 0, where squares cancel
    x[0] = samples[0]
    x[1] += 3  # and an example far from all samples
    ours, theirs = parzen.log_prob(samples, x, h), kernel_density(samples, h).score_samples(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-7)
    single = parzen.log_prob(samples.astype(np.float32), x.astype(np.float32), h)
    np.testing.assert_allclose(single, theirs, rtol=1e-3, atol=1e-3)


def test_chooses_the_best_of_the_grid():
    rng = np.random.default_rng(1)
    samples, validation = rng.standard_normal((300, 2)), rng.standard_normal((200, 2))
    grid = np.geomspace(0.05, 3, 15)
    scores = [kernel_density(samples, h).score(validation) for h in grid]
    want = grid[np.argmax(scores)]
    assert 0.2 < want < 1
    assert parzen.choose_bandwidth(samples, validation, grid) == want
    assert parzen.choose_bandwidth(samples, validation, grid[::-1]) == want


@pytest.mark.parametrize("low, high", [(1e-4, 1e-3), (20, 50), (0.01, 0.02)])
def test_goes_beyond_a_grid_whose_end_is_best(low, high):
    rng = np.random.default_rng(1)
    samples, validation = rng.standard_normal((300, 2)), rng.standard_normal((200, 2))
    grid = np.geomspace(low, high, 6)
    chosen = parzen.choose_bandwidth(samples, validation, grid)
    assert not low <= chosen <= high
    step = grid[1] / grid[0]
    score, below, above = (kernel_density(samples, chosen * f).score(validation) for f in (1, 1 / step, step))
    assert score >= below and score >= above


@pytest.mark.parametrize("end", [slice(7, None), slice(None, 8)], ids=["lowest", "highest"])
def test_an_end_that_is_the_best_is_found_again(end):
    rng = np.random.default_rng(1)
    samples, validation = rng.standard_normal((300, 2)), rng.standard_normal((200, 2))
    want = parzen.choose_bandwidth(samples, validation, np.geomspace(0.1, 2, 200))
    part = want * 1.2 ** np.arange(-7, 8)[end]
    np.testing.assert_allclose(parzen.choose_bandwidth(samples, validation, part), want)


@pytest.mark.slow
def test_report_of_gaussian_samples():
    # Samples of N(0, I) with a window h estimate N(0, (1 + h²) I) as their number grows.
    rng = np.random.default_rng(2)
    samples, validation, test = (rng.standard_normal((n, 2)) for n in (20_000, 1000, 2000))
    report = parzen.report(samples, validation, test)
    assert 0.1 < report["bandwidth"] < 0.4
    assert report["num_samples"] == 20_000
    exact = scipy.stats.norm(0, np.sqrt(1 + report["bandwidth"] ** 2)).logpdf(test).sum(1)
    np.testing.assert_allclose(report["log_likelihood"], exact.mean(), atol=0.02)
    np.testing.assert_allclose(report["standard_error"], exact.std() / np.sqrt(2000), rtol=0.05)
    np.testing.assert_allclose(report["bits"], report["log_likelihood"] * np.log2(np.e))
    np.testing.assert_allclose(report["standard_error_bits"], report["standard_error"] * np.log2(np.e))
    json.dumps(report)


def test_memory_is_that_of_a_block():
    rng = np.random.default_rng(3)
    samples, x = rng.standard_normal((20_000, 2)), rng.standard_normal((1500, 2))
    tracemalloc.start()
    parzen.log_prob(samples, x, 0.3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (4 * parzen.BLOCK) < 8 * samples.shape[0] * x.shape[0]


def test_bad_input_is_named():
    good = np.zeros((4, 3))
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="3 dimensions and x has 2"):
        parzen.log_prob(good, np.zeros((4, 2)), 1.0)
    with pytest.raises(InputError, match="samples has NaN or infinity in 1 of 4 rows"):
        parzen.log_prob(bad, good, 1.0)
    with pytest.raises(InputError, match="x has NaN or infinity"):
        parzen.log_prob(good, bad, 1.0)
    with pytest.raises(InputError, match=r"samples has shape \(4, 3, 1\)"):
        parzen.log_prob(good[..., None], good, 1.0)
    with pytest.raises(InputError, match=r"x has shape \(0, 3\)"):
        parzen.log_prob(good, good[:0], 1.0)
    for bandwidth in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="bandwidth must be a positive number"):
            parzen.log_prob(good, good, bandwidth)
    with pytest.raises(InputError, match="2 different values"):
        parzen.choose_bandwidth(good, good, [0.1, 0.2])
    with pytest.raises(InputError, match="copies of the validation set"):
        copies = np.random.default_rng(0).random((20, 3))
        parzen.choose_bandwidth(copies, copies[:9])


def test_a_report_that_cannot_be_had_is_nan_and_says_why(caplog):
    rng = np.random.default_rng(0)
    samples, validation, test = (rng.normal(size=(n, 2)) for n in (30, 10, 5))
    one = parzen.report(samples, validation, test[:1])
    assert np.isfinite(one["log_likelihood"]) and np.isnan(one["standard_error"])
    assert caplog.text == ""
    broken = np.where(np.arange(30)[:, None] == 3, np.nan, samples)
    cases = (
        (broken, validation, "NaN or infinity in 1 of 30"),
        (samples, samples[:10], "copies of the validation set"),
    )
    for found, held_out, says in cases:
        report = parzen.report(found, held_out, test)
        numbers = [report[name] for name in ("log_likelihood", "standard_error", "bits", "bandwidth")]
        assert np.isnan(numbers).all() and report["num_samples"] == 30
        assert says in caplog.text
    with pytest.raises(InputError, match="dimensions"):
        parzen.report(samples, validation, test[:, :1])
