"""How times are drawn: unbiased for every sampler, and the variance each is meant to save."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from diffjax import schedules, time_sampling
from diffjax.errors import InputError

STEPS = 40
PROFILE = 5.0 * np.exp(-np.arange(STEPS) / 4.0) + 0.02  # like L_vlb's: the first steps carry nearly all of it


def filled(sampler, losses, rounds=10):
    """The sampler's state after it has seen losses[i] at every grid time, `rounds` times."""
    state = sampler.init()
    grid = (jnp.arange(STEPS) + 1) / STEPS
    for _ in range(rounds):
        state = jax.jit(sampler.update)(state, grid, jnp.asarray(losses, jnp.float32))
    return state


def make(name):
    if name == "loss_aware":
        sampler = time_sampling.loss_aware(STEPS)
        return sampler, filled(sampler, PROFILE)
    sampler = getattr(time_sampling, name)(STEPS)
    return sampler, sampler.update(sampler.init(), jnp.ones(3), jnp.ones(3))


def estimates(name, num=16, repeats=4000):
    """`repeats` estimates of the mean of PROFILE over the grid, from batches of `num` times, and the times."""
    sampler, state = make(name)
    keys = jax.random.split(jax.random.key(0), repeats)
    t, weights = jax.jit(jax.vmap(lambda key: sampler.sample(state, key, num)))(keys)
    index = np.asarray(t, np.float64) * STEPS - 1
    assert np.abs(index - index.round()).max() < 1e-4, "times must be on the grid i/T, i = 1..T"
    index = index.round().astype(int)
    assert index.min() == 0 and index.max() == STEPS - 1
    return (np.float64(weights) * PROFILE[index]).mean(1), index


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["uniform", "low_discrepancy", "loss_aware"])
def test_unbiased(name):
    values, _ = estimates(name)
    assert abs(values.mean() - PROFILE.mean()) < 5 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("name", ["uniform", "low_discrepancy"])
def test_each_time_is_uniform(name):
    _, index = estimates(name)
    for column in (0, 7):  # of one place in the batch, over batches: independent draws, so chi-square holds
        count = np.bincount(index[:, column], minlength=STEPS)
        assert scipy.stats.chisquare(count).pvalue > 1e-6


def test_low_discrepancy_hits_every_stratum():
    for num in (STEPS, 10, 7):
        sampler = time_sampling.low_discrepancy(STEPS)
        t, weights = jax.jit(jax.vmap(lambda key, num=num, s=sampler: s.sample((), key, num)))(
            jax.random.split(jax.random.key(1), 200)
        )
        assert (np.asarray(weights) == 1).all()
        index = (np.asarray(t, np.float64) * STEPS).round().astype(int) - 1
        for row in index:
            counts = np.bincount(row, minlength=STEPS)
            if num == STEPS:
                assert counts.max() <= 2 and (counts == 1).mean() > 0.9  # once each, up to a rounding at the edges
            # Any window holds its share of equidistant points to within one, and one more for roundings at its ends;
            # independent draws of 40 miss by 7.
            windows = np.convolve(np.concatenate([counts, counts]), np.ones(8), "valid")
            assert np.abs(windows - num / 5).max() <= 2
    order = (np.diff(index, axis=1) > 0).mean()
    assert 0.4 < order < 0.6, "an example's place says nothing about its time"


def test_variance_is_reduced():
    variance = {name: estimates(name)[0].var() for name in ("uniform", "low_discrepancy", "loss_aware")}
    np.testing.assert_allclose(variance["uniform"], PROFILE.var() / 16, rtol=0.2)
    assert variance["low_discrepancy"] < 0.2 * variance["uniform"]
    # p ∝ L makes every weighted loss the same but for the floor of uniform draws, a thousandth.
    assert variance["loss_aware"] < 0.01 * variance["uniform"]


def numpy_loss_aware(history, length, floor):
    """Nichol & Dhariwal 2021, eq. 18, as lists: their code's warm-up and uniform mixing."""
    if any(len(h) < length for h in history):
        return np.full(STEPS, 1 / STEPS)
    w = np.array([np.sqrt(np.mean(np.square(h[-length:]))) for h in history])
    return (1 - floor) * w / w.sum() + floor / STEPS


def test_loss_aware_against_lists():
    rng = np.random.default_rng(0)
    sampler = time_sampling.loss_aware(STEPS)
    update, sample = jax.jit(sampler.update), jax.jit(sampler.sample, static_argnums=2)
    state, history = sampler.init(), [[] for _ in range(STEPS)]
    seen_uniform = seen_learned = False
    for i in range(60):
        # batches with repeated times, more than the history holds of some
        index = rng.integers(0, STEPS, 32) if i % 2 else np.repeat(rng.permutation(STEPS)[:16], 2)
        losses = rng.gamma(1.0, 1.0, 32) * (1 + index)
        state = update(state, jnp.asarray((index + 1) / STEPS, jnp.float32), jnp.asarray(losses, jnp.float32))
        for j, l in zip(index, losses, strict=True):
            history[j].append(l)
        if i % 6 == 5:
            want = numpy_loss_aware(history, 10, 0.001)
            t, weights = sample(state, jax.random.key(i), 2000)
            drawn = (np.asarray(t) * STEPS).round().astype(int) - 1
            np.testing.assert_allclose(weights, 1 / (STEPS * want[drawn]), rtol=1e-4)
            count = np.bincount(drawn, minlength=STEPS)
            assert scipy.stats.chisquare(count, want * 2000).pvalue > 1e-7
            full = min(len(h) for h in history) >= 10
            seen_uniform |= not full
            seen_learned |= full
            assert full or np.asarray(weights == 1).all()
    assert seen_uniform and seen_learned


def test_loss_aware_survives_zero_losses():
    sampler = time_sampling.loss_aware(STEPS)
    t, weights = sampler.sample(filled(sampler, np.zeros(STEPS)), jax.random.key(0), 1000)
    assert np.isfinite(weights).all() and len(np.unique(np.asarray(t))) == STEPS


def test_continuous_is_uniform_stratified_and_unbiased():
    start, num, repeats = 0.2, 16, 2000
    sampler = time_sampling.continuous(start)
    t, weights = jax.jit(jax.vmap(lambda key: sampler.sample(sampler.init(), key, num)))(
        jax.random.split(jax.random.key(2), repeats)
    )
    t = np.float64(t)
    assert (np.asarray(weights) == 1).all() and t.min() >= start and t.max() <= 1
    for column in (0, 7):  # one place in the batch, over batches
        assert scipy.stats.kstest(t[:, column], scipy.stats.uniform(start, 1 - start).cdf).pvalue > 1e-6
    # every batch has its points (1 - start)/num apart, the last to the first round the end included
    ordered = np.sort(t, axis=1)
    gaps = np.diff(ordered, axis=1, append=ordered[:, :1] + 1 - start)
    np.testing.assert_allclose(gaps, (1 - start) / num, atol=1e-6)
    assert 0.4 < (np.diff(t, axis=1) > 0).mean() < 0.6
    # the mean of f = 1/t² over [start, 1] is 1/start
    values = (1 / t**2).mean(1)
    independent = ((1 / start**3 - 1) / (3 * (1 - start)) - 1 / start**2) / num  # variance of a mean of draws
    error = values.std() / np.sqrt(repeats)
    assert abs(values.mean() - 1 / start) < 5 * error
    assert values.var() < 0.2 * independent


@pytest.mark.slow
def test_history_keeps_its_type_and_its_program(compilations):
    with jax.numpy_dtype_promotion("strict"):
        for _ in range(2):
            compilations.clear()
            sampler = time_sampling.loss_aware(4, length=2)
            state = sampler.update(sampler.init(), jnp.array([0.25, 1.0]), jnp.array([1.5, 3.0], jnp.bfloat16))
        assert not compilations
        np.testing.assert_array_equal(state.losses, [[1.5, 0], [0, 0], [0, 0], [3, 0]])
        single = jax.tree.map(lambda a: a, state)
        with jax.enable_x64(True):
            later = sampler.update(single, jnp.array([0.25]), jnp.array([2.5]))
            assert later.losses.dtype == np.float32
            np.testing.assert_array_equal(later.losses[0], [1.5, 2.5])
            for other in (sampler, *(make(4) for make in (time_sampling.uniform, time_sampling.low_discrepancy))):
                t, weights = other.sample(other.init(), jax.random.key(0), 8)
                assert np.isin(np.round(np.float64(t) * 4, 6), [1, 2, 3, 4]).all() and (np.asarray(weights) == 1).all()


def test_log_normal_and_logit_normal_times_have_their_quantiles():
    # Evenly spread in their quantiles: the sorted draws are those of the law to 1/num.
    num = 2000
    middle = scipy.stats.norm.ppf((np.arange(num) + 0.5) / num)
    inner = slice(num // 50, -num // 50)
    for schedule in (schedules.edm(), schedules.vp(), schedules.straight()):
        t, weights = time_sampling.log_normal(schedule, -1.0, 0.7).sample((), jax.random.key(0), num)
        assert (np.asarray(weights) == 1).all()
        level = np.sort(-0.5 * np.float64(schedule.log_snr(t)))
        np.testing.assert_allclose(level[inner], (-1.0 + 0.7 * middle)[inner], atol=0.02)
    t, _ = time_sampling.logit_normal(0.5, 2.0).sample((), jax.random.key(0), num)
    np.testing.assert_allclose(
        np.sort(scipy.special.logit(np.float64(t)))[inner], (0.5 + 2.0 * middle)[inner], atol=0.05
    )
    assert np.ptp(np.float64(t)) < 1


def test_mode_times_have_their_density():
    """P(t < a) = P(u > u_a), u_a the root of the rising function 1 - t(u): found here by bisection in numpy."""
    num = 4000
    for scale in (-1.0, 0.5, 1.5):
        t, weights = time_sampling.mode(scale).sample((), jax.random.key(0), num)
        assert (np.asarray(weights) == 1).all()
        for a in (0.1, 0.5, 0.8):
            u = scipy.optimize.brentq(
                lambda u, a, k: 1 - u - k * (np.cos(np.pi * u / 2) ** 2 - 1 + u) - a, 0, 1, (a, scale)
            )
            assert abs((np.asarray(t) < a).mean() - (1 - u)) < 2 / num, (scale, a)  # the draws are evenly spread


def test_times_by_name():
    schedule, settings = schedules.straight(), {"time_mean": 0.3, "time_std": 0.7, "time_scale": 0.5}
    want = {
        "uniform": time_sampling.continuous(1e-5),
        "log_normal": time_sampling.log_normal(schedule, 0.3, 0.7),
        "logit_normal": time_sampling.logit_normal(0.3, 0.7),
        "mode": time_sampling.mode(0.5),
    }
    assert set(want) == set(time_sampling.ALL_TIMES)
    for name, sampler in want.items():
        got = time_sampling.of_all_times("matching.time_sampling", name, schedule, settings)
        key = jax.random.key(1)
        np.testing.assert_array_equal(got.sample((), key, 16)[0], sampler.sample((), key, 16)[0])
    with pytest.raises(InputError, match=r"matching.time_sampling must be one of uniform.*, not 'cosine'"):
        time_sampling.of_all_times("matching.time_sampling", "cosine", schedule, {})
    with pytest.raises(InputError, match=r"scale of mode times must be from -1 to 1\.7519.*not 1.8"):
        time_sampling.mode(1.8)
