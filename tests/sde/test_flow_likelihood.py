"""Likelihood along the flow against exact densities, the estimator's known variance, and sums over all integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from diffjax import predictions, processes, reference, schedules, sde
from diffjax.errors import InputError

STEEP = schedules.vp(0.1, 50.0)  # alpha(1) = 4e-6: what is at time 1 is the prior to six digits
SCHEDULES = {
    "vp": schedules.vp,
    "sub_vp": schedules.sub_vp,
    "ve": lambda: schedules.ve(0.05, 20.0),
    "chain": lambda: schedules.linear(100, 1e-3, 0.2),
    "straight": schedules.straight,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_is_the_density_of_the_noised_mixture(name):
    """p_1 of the mixture is not the prior, which is put right by the two at the latents: the rest is ∫∇·v."""
    with jax.enable_x64(True):
        mix = reference.GaussianMixture(
            jnp.array([0.4, 0.6]),
            jnp.array([[1.0, 0.3], [-0.8, -0.4]]),
            jnp.array([[[0.6, 0.1], [0.1, 0.5]], [[0.5, -0.2], [-0.2, 0.3]]]),
        )
        schedule = SCHEDULES[name]()
        x, start = mix.sample(jax.random.key(0), 30), 0.01 if name == "chain" else 1e-5
        process, predict = processes.gaussian(schedule), mix.predict(schedule, "x0" if name == "straight" else "eps")
        run = jax.jit(lambda key, x: sde.likelihood(process, predict, key, x, rtol=1e-6, atol=1e-6))
        got = run(jax.random.key(1), x)
        assert got.num_evaluations < 250
        std = {"ve": 20.0}.get(name, 1.0)
        prior = scipy.stats.norm.logpdf(got.latents, scale=std).sum(1)
        straight = name == "straight"  # whose end is the prior
        last = prior if straight else mix.at(schedule.alpha(1.0), schedule.sigma(1.0)).log_prob(got.latents)
        want = mix.at(schedule.alpha(start), schedule.sigma(start)).log_prob(x)
        np.testing.assert_allclose(got.log_prob - prior + last, want, atol=2e-5)
        assert (
            straight or np.abs(last - prior).max() > 3e-4
        )  # so that a prior forgotten or of another width would be seen
        # In two dimensions the divergence is exact without asking: another key, the same result.
        np.testing.assert_array_equal(run(jax.random.key(2), x).log_prob, got.log_prob)


@pytest.mark.slow
@pytest.mark.parametrize("probe, num_probes", [("rademacher", 3), ("gaussian", 1)])
def test_hutchinson_is_unbiased_with_the_known_variance(probe, num_probes):
    """On N(0, C) the flow is linear and ∫∂v/∂x = M = ½ log[C_1 C_start⁻¹]; above 16 dimensions it is the default."""
    dimensions, n = 17, 3000
    schedule = schedules.vp()
    loading = np.random.default_rng(0).normal(size=(dimensions, 3))
    cov = loading @ loading.T / 3 + 0.3 * np.eye(dimensions)
    normal = reference.GaussianMixture(jnp.ones(1), jnp.zeros((1, dimensions)), jnp.asarray(cov)[None])
    values, vectors = np.linalg.eigh(cov)

    def score(x, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return -(x @ vectors / (alpha**2 * values + sigma**2)) @ vectors.T

    process, predict = processes.gaussian(schedule), predictions.score(score)
    x = jnp.broadcast_to(normal.sample(jax.random.key(0), 1), (n, dimensions))
    run = jax.jit(lambda key: sde.likelihood(process, predict, key, x, None, num_probes, probe, rtol=1e-4, atol=1e-4))
    got = run(jax.random.key(1))
    estimate = np.float64(got.log_prob) - scipy.stats.norm.logpdf(got.latents).sum(1)

    def noised(t):
        return float(schedule.alpha(t)) ** 2 * cov + float(schedule.sigma(t)) ** 2 * np.eye(dimensions)

    M = 0.5 * scipy.linalg.logm(noised(1.0) @ np.linalg.inv(noised(1e-5)))
    diagonal = np.diag(M) ** 2
    want = 2 * ((M**2).sum() - (diagonal.sum() if probe == "rademacher" else 0.0)) / num_probes
    variance = estimate.var(ddof=1)
    assert abs(estimate.mean() - np.trace(M)) < 5 * np.sqrt(want / n) + 1e-3
    kurtosis = ((estimate - estimate.mean()) ** 4).mean() / variance**2
    assert abs(variance - want) < 5 * want * np.sqrt((kurtosis - 1) / n) < 0.25 * want


def test_a_density_that_ends_in_the_prior_needs_no_correction():
    # N(0, I) stays what it is under vp, and its flow stands still.
    x = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    process, predict = processes.gaussian(schedules.vp()), predictions.score(lambda x, t: -x)
    got = jax.jit(lambda x: sde.log_prob(process, predict, jax.random.key(1), x, "exact"))(x)
    np.testing.assert_allclose(got, scipy.stats.norm.logpdf(x).sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.slow
def test_a_row_that_is_not_finite_leaves_the_density_of_the_others():
    """N(m, v), a NaN in the data and a network that is NaN for one row."""
    mean, variance, lost, start = 0.2, 0.15, np.array([1, 4]), 1e-4
    process = processes.gaussian(STEEP)

    def predict(x, t):
        alpha, sigma = STEEP.alpha(t)[:, None], STEEP.sigma(t)[:, None]
        score = (alpha * mean - x) / (alpha**2 * variance + sigma**2)
        return predictions.Prediction(jnp.where(jnp.arange(len(x))[:, None] == 4, jnp.nan, score), "score")

    x = np.random.default_rng(0).normal(mean, np.sqrt(variance), (6, 2))
    x[1, 0] = np.nan
    got = jax.jit(lambda x: sde.log_prob(process, predict, jax.random.key(0), x, start=start))(x)
    assert jnp.isnan(got[lost]).all()
    std = np.sqrt(float(STEEP.alpha(start)) ** 2 * variance + float(STEEP.sigma(start)) ** 2)
    want = scipy.stats.norm.logpdf(x, float(STEEP.alpha(start)) * mean, std).sum(1)
    kept = np.delete(np.arange(6), lost)
    np.testing.assert_allclose(got[kept], want[kept], atol=1e-3)


LEVELS, DRAWS = 5, 1000
PMF = np.array([0.05, 0.3, 0.2, 0.35, 0.1])
POINTS = 2 * np.arange(LEVELS) / (LEVELS - 1) - 1
WIDTH = 2 / (LEVELS - 1)


def discrete(predict, dequantization, event):
    """start -> draws (LEVELS, DRAWS) of the bound for every level, in all entries of an event the same."""
    levels = jnp.repeat(jnp.arange(LEVELS, dtype=jnp.uint8), DRAWS)[:, None] * jnp.ones((1, event), jnp.uint8)
    process = processes.gaussian(STEEP)

    @jax.jit
    def run(key, levels, start):
        return sde.discrete_log_prob(process, predict, key, levels, LEVELS, dequantization, start=start)

    return lambda start: np.float64(run(jax.random.key(0), levels, start)).reshape(LEVELS, DRAWS)


@pytest.mark.slow
def test_uniform_dequantization_has_the_expectation_and_the_offset():
    """N(m, v) in two dimensions with equal levels: E_u log p is in closed form, and log P(k) a difference of two Φ."""
    mean, variance, start = 0.2, 0.15, 1e-4
    score = predictions.score(
        lambda x, t: (
            (STEEP.alpha(t)[:, None] * mean - x) / (STEEP.alpha(t) ** 2 * variance + STEEP.sigma(t) ** 2)[:, None]
        )
    )
    draws = discrete(score, "uniform", event=2)(start)
    v = float(STEEP.alpha(start)) ** 2 * variance + float(STEEP.sigma(start)) ** 2
    expected = -((POINTS - mean) ** 2 + WIDTH**2 / 12) / (2 * v) - 0.5 * np.log(2 * np.pi * v) + np.log(WIDTH)
    error = draws.std(1, ddof=1) / np.sqrt(DRAWS)
    assert (np.abs(draws.mean(1) - 2 * expected) < 5 * error + 1e-3).all() and (error < 0.06).all()
    normal = scipy.stats.norm(mean, np.sqrt(v))
    exact = 2 * np.log(normal.cdf(POINTS + WIDTH / 2) - normal.cdf(POINTS - WIDTH / 2))
    assert (2 * expected < exact).all()


@pytest.fixture(scope="module")
def forward_draws():
    """Of the exact network for data of the masses PMF: E[x_0 | x_t] in closed form."""

    def mean(x, t):
        alpha, sigma = STEEP.alpha(t)[:, None], STEEP.sigma(t)[:, None]
        return jax.nn.softmax(-0.5 * ((x - alpha * POINTS) / sigma) ** 2 + np.log(PMF)) @ POINTS[:, None]

    return discrete(predictions.x0(mean), "forward", event=1)


def time_of(sigma):
    rate = -np.log1p(-(sigma**2))
    return float((-0.1 + np.sqrt(0.01 + 2 * 49.9 * rate)) / 49.9)


@pytest.mark.slow
def test_forward_dequantization_is_exact_where_the_noise_is_small(forward_draws):
    """Every draw is then log P(k): x_start tells k, and p(x_start) is P(k) q(x_start | k)."""
    draws = forward_draws(time_of(0.05))
    np.testing.assert_allclose(draws, np.broadcast_to(np.log(PMF)[:, None], draws.shape), atol=0.02)
    np.testing.assert_allclose(draws.mean(1), np.log(PMF), atol=2e-3)


@pytest.mark.slow
def test_forward_dequantization_is_a_bound_with_the_expectation_of_quadrature(forward_draws):
    """Noise as wide as the bins: E_q [log p(x_t) + log P(k | x_t) - log q(x_t | k)] by quadrature in float64."""
    start = time_of(0.35)
    draws = forward_draws(start)
    alpha, sigma = float(STEEP.alpha(start)), float(STEEP.sigma(start))
    x = np.linspace(-4, 4, 4001)
    q = scipy.stats.norm.pdf(x, alpha * POINTS[:, None], sigma)
    p = PMF @ q
    mean = (POINTS * PMF) @ q / p
    share = -np.expm1(float(STEEP.log_snr(2 * start)) - float(STEEP.log_snr(start)))
    edges = np.concatenate([[-np.inf], (POINTS[1:] + POINTS[:-1]) / 2, [np.inf]])[:, None]
    decoder = np.diff(scipy.stats.norm.cdf(edges, mean, np.sqrt(share) * sigma), axis=0)
    want = (q * (np.log(p) + np.log(decoder) - np.log(q))).sum(1) * (x[1] - x[0])
    error = draws.std(1, ddof=1) / np.sqrt(DRAWS)
    assert (np.abs(draws.mean(1) - want) < 5 * error + 1e-3).all() and (error < 0.06).all()
    model = decoder @ p * (x[1] - x[0])
    np.testing.assert_allclose(model.sum(), 1.0, rtol=1e-6)
    assert (want < np.log(model) - 0.003).all()


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"divergence": "trace"}, "divergence must be one of exact, hutchinson, not 'trace'"),
        ({"divergence": "hutchinson", "probe": "uniform"}, "probe must be one of rademacher, gaussian"),
        ({"num_probes": True}, "num_probes must be a positive integer"),
        ({"num_levels": 5.0}, "num_levels must be a positive integer"),
        ({"rtol": np.nan}, "rtol must be a positive finite number"),
        ({"start": 500}, "start=500 must be a time"),
        ({"num_probes": 0}, "num_probes must be a positive integer.*not 0"),
        ({"start": 0.0}, "start=0.0 must be a time"),
        ({"start": 1.0}, "same time"),
        ({"dequantization": "none"}, "dequantization must be one of uniform, forward"),
        ({"num_levels": 4}, "reach from 0 to 4: they must be in 0 .. num_levels - 1 = 3"),
        ({"num_levels": 1}, "num_levels must be at least 2"),
        ({"levels": jnp.ones((2, 3))}, "levels must be integers 0 .. 4, not float32"),
        ({"levels": jnp.array([[-1, 2]])}, "reach from -1 to 2"),
    ],
)
def test_bad_input_is_named(arguments, match):
    process, predict = processes.gaussian(schedules.vp()), predictions.score(lambda x, t: -x)
    given = {"levels": jnp.array([[0, 4]]), "num_levels": LEVELS} | arguments
    with pytest.raises(InputError, match=match):
        sde.discrete_log_prob(process, predict, jax.random.key(0), **given)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_narrow_types_become_float32_in_wide_mode(dtype):
    """Under strict promotion; N(0, I) is what stays as it is."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        process, predict, key = (
            processes.gaussian(schedules.vp()),
            predictions.score(lambda x, t: -x),
            jax.random.key(0),
        )
        x = jnp.asarray([[0.5, -0.25], [1.0, 2.0]], dtype)
        got = sde.log_prob(process, predict, key, x, "hutchinson", np.int8(2))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, scipy.stats.norm.logpdf(np.float64(x)).sum(1), rtol=1e-5)
        got = sde.discrete_log_prob(process, predict, key, np.ones((2, 2), np.uint8), np.uint8(255))
        assert jnp.isfinite(got).all()
