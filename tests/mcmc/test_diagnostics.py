"""ESS and R-hat against arviz, on chains that mix badly, well and too well, of light and heavy tails and of ties."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special

from diffjax.errors import InputError
from diffjax.mcmc import diagnostics, ess, ess_tail, rhat

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # about arviz's own next version
    import arviz

ALL = jax.jit(lambda draws: (ess(draws), ess_tail(draws), rhat(draws)))


def chains(num_chains, num_draws):
    """AR(1) chains (chain, draw, 6 correlations, 4 kinds): normal, Cauchy, rounded, and chains of unlike scale."""
    rng = np.random.default_rng(0)
    phi = np.array([-0.9, -0.3, 0.0, 0.5, 0.95, 0.995])
    normal = np.zeros((num_chains, num_draws, phi.size))
    innovation = rng.normal(size=normal.shape)
    normal[:, 0] = innovation[:, 0]
    for t in range(1, num_draws):
        normal[:, t] = phi * normal[:, t - 1] + np.sqrt(1 - phi**2) * innovation[:, t]
    cauchy = normal / np.abs(rng.normal(size=normal.shape))
    unlike = normal * np.linspace(0.5, 2.0, num_chains)[:, None, None]
    draws = np.stack([normal, cauchy, np.round(normal), unlike], axis=-1)
    return draws.astype(np.float32).astype(np.float64)  # the same numbers in either precision


def against_arviz(draws, rtol):
    ours = ALL(draws)
    theirs = [
        lambda x: arviz.ess(x, method="bulk"),
        lambda x: arviz.ess(x, method="tail", prob=(0.05, 0.95)),
        arviz.rhat,
    ]
    each = np.moveaxis(draws, (0, 1), (-2, -1)).reshape(-1, *draws.shape[:2])
    equal = np.ptp(each, axis=(1, 2)) == 0  # which count in full for arviz
    for values, statistic in zip(ours, theirs[: 3 if draws.shape[0] > 1 else 2], strict=False):
        assert values.shape == draws.shape[2:]
        want = np.where(equal, np.nan, [statistic(x) for x in each])
        np.testing.assert_allclose(values.ravel(), want, rtol=rtol)


# Not where a quantile falls on a draw, as 5% of 21 draws does: there arviz's rounding decides on which side it is.
@pytest.mark.fast(1)
@pytest.mark.parametrize("shape", [(1, 4), (2, 11), (5, 13), (50, 103)])
def test_all_sizes_as_arviz_in_double_precision(shape):
    with jax.enable_x64(True), np.errstate(divide="ignore", invalid="ignore"):
        against_arviz(chains(*shape), rtol=1e-9)


@pytest.mark.slow
def test_as_arviz_in_single_precision():
    against_arviz(chains(4, 1001), rtol=1e-4)


@pytest.mark.fast(1)
@pytest.mark.parametrize("num", [5, 2**24, 2**27 + 1])
def test_normal_scores_have_all_their_digits(num):
    """Against scipy in double precision: the first ranks, the last ones and those between."""
    first = np.arange(1, 5)
    rank = np.unique([*first, *np.geomspace(1, num, 500).astype(int), num // 2 + 1, *(num + 1 - first)])
    scores = diagnostics._score(jnp.asarray(2 * rank - num - 1), num, jnp.float32)
    np.testing.assert_allclose(scores, scipy.special.ndtri((rank - 0.375) / (num + 0.25)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_more_draws_than_single_precision_counts():
    """AR(1) chains of φ = ½: R-hat is 1 and ESS (1 - φ)/(1 + φ) = 1/3 of the draws.

    The standard error of √(var⁺/W) - 1 is below 1/N_half, that of a sum of ten autocorrelations, each known to
    √(5/3)/√(M N), some 0.2%.
    """
    noise = np.random.default_rng(0).normal(size=(2, 2**22 + 8)).astype(np.float32)
    draws = scipy.signal.lfilter([1.0], [1.0, -0.5], noise, axis=1).astype(np.float32)
    assert draws.size > 2**23
    bulk, tail, r = ALL(draws)
    np.testing.assert_allclose(bulk / draws.size, 1 / 3, rtol=0.01)
    np.testing.assert_allclose(r, 1.0, atol=1e-5)
    assert 0.3 < tail / draws.size < 1


def test_one_chain_that_drifts_disagrees_with_itself():
    """Halves of N(0, 1) and N(d, 1) have W = 1, B/N = d²/2, R-hat = √(1 + d²/2), nearly so in normal scores, too."""
    still = np.random.default_rng(0).normal(size=(1, 4000))
    drifting = still + (np.arange(4000) >= 2000)
    values = ALL(np.stack([still, drifting], axis=-1))[2]
    np.testing.assert_allclose(values, [1.0, np.sqrt(1.5)], rtol=0.01)


def test_draws_that_are_equal_infinite_or_no_numbers():
    large = chains(3, 11)[..., 1, 0]
    large[1, 7] = large.max() + 1
    infinite, equal = large.copy(), np.ones((3, 11))
    infinite[1, 7] = np.inf
    stuck = equal * np.arange(3)[:, None]  # each in a place of its own
    no_number = large.copy()
    no_number[2, 3] = np.nan
    bulk, tail, r = np.asarray(ALL(np.stack([large, infinite, equal, stuck, no_number], axis=-1)))
    assert (bulk[0], tail[0], r[0]) == (bulk[1], tail[1], r[1]) and np.isfinite(r[0])  # infinity is but the largest
    assert np.isnan([bulk[2], tail[2], r[2]]).all()
    assert bulk[3] < 12 and r[3] > 1e3
    assert np.isnan([bulk[4], tail[4], r[4]]).all()


@pytest.mark.parametrize("statistic", [ess, ess_tail, rhat])
@pytest.mark.parametrize("shape", [(100,), (3, 3), (0, 100)])
def test_bad_input_is_named(statistic, shape):
    with pytest.raises(InputError, match=r"draws must be \(chain, draw, \*event\) with at least 4 draws"):
        statistic(jnp.zeros(shape))
