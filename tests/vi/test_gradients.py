"""Estimators of the gradient of an expectation: means and variances in closed form, quadrature, exact sums."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree
from numpy.polynomial import Polynomial

from diffjax import vi
from diffjax.distributions import Bernoulli, DiscretizedLogistic, DiscretizedNormal, Gamma, Normal
from diffjax.errors import InputError

SCORES = ("score", "score_leave_one_out")
ESTIMATORS = (*SCORES, "reparameterized", "sticking_the_landing")


def normal(params):
    """N(m, s²) of params (m, log s)."""
    return Normal(params[0], jnp.exp(2 * params[1]))


def gamma(params):
    return Gamma(jnp.exp(params[0]), jnp.exp(params[1]))


def bernoulli(params):
    return Bernoulli(params[0])


@functools.partial(jax.jit, static_argnums=(0, 1, 3, 4, 5, 6))
def many(f, family, params, num, estimators, own, repeats, baseline=0.0):
    """Of each estimator independent estimates, stacked in front, each of which is a flat vector; and their values."""

    def one(estimator, key):
        values, gradient = vi.value_and_gradient(f, family, params, key, num, estimator, own, baseline)
        return ravel_pytree(gradient)[0], values

    keys = jax.random.split(jax.random.key(0), repeats)
    return {name: jax.vmap(functools.partial(one, name))(keys) for name in estimators}


def assert_means(draws, want, floor=1e-5):
    """Within five standard errors; what floating point rounds is below `floor`."""
    draws, want = np.asarray(draws, np.float64), np.asarray(want)
    error = 5 * draws.std(0, ddof=1) / len(draws) ** 0.5 + floor
    assert (np.abs(draws.mean(0) - want) < error).all(), (draws.mean(0), want, error)
    assert (error < 0.3 * np.abs(want).max()).all(), ("this would not tell", error)


def assert_all(f, family, params, num, estimators, own, repeats, want):
    for draws, _ in many(f, family, params, num, estimators, own, repeats).values():
        assert_means(draws, want)


# f = Σ_d p_d(ε_d) in N(m, s²), z = m + s ε: for one of the dimensions, a polynomial and an independent rest.

MOMENTS = np.array([1, 0, 1, 0, 3, 0, 15, 0, 105])  # E ε^k
CENTRES, WIDTHS = np.array([0.7, -1.2, 0.3]), np.array([0.5, 1.5, 0.9])


def mean(polynomial):
    return polynomial.coef @ MOMENTS[: len(polynomial.coef)]


def theory(estimator, a, b, num, baseline=0.0, m=CENTRES, s=WIDTHS):
    """The mean and the variance of the gradient of E[Σ_d a z_d + b z_d²] in (m, log s), each (2, D)."""
    parts = [Polynomial([a * m + b * m**2, (a + 2 * b * m) * s, b * s**2]) for m, s in zip(m, s, strict=True)]
    means = np.array([mean(p) for p in parts])
    variances = np.array([mean(p**2) for p in parts]) - means**2
    out = np.zeros((2, 2, len(m)))
    for d, (p, width) in enumerate(zip(parts, s, strict=True)):
        rest, rest_variance = means.sum() - means[d], variances.sum() - variances[d]
        for i, score in enumerate([Polynomial([0, 1 / width]), Polynomial([-1, 0, 1])]):
            expected = mean(p * score)
            if estimator == "score":
                variance = mean((p + rest - baseline) ** 2 * score**2) + rest_variance * mean(score**2) - expected**2
                variance = variance / num
            elif estimator == "score_leave_one_out":  # the sample covariance of f and the score
                fourth = mean((p - means[d]) ** 2 * score**2) + rest_variance * mean(score**2)
                both = variances.sum() * mean(score**2) + expected**2
                variance = (fourth - expected**2) / num + both / (num * (num - 1))
            else:
                slope = p.deriv() * (Polynomial([1 / width]), Polynomial([0, 1]))[i]
                assert np.isclose(mean(slope), expected)
                variance = (mean(slope**2) - expected**2) / num
            out[:, i, d] = expected, variance
    return out


def test_theory_agrees_with_what_paper_and_pencil_give():
    """f = z in one dimension."""
    m, s = 0.7, 0.5
    _, score = theory("score", 1, 0, 1, 0.2, m=[m], s=[s])
    np.testing.assert_allclose(score[:, 0], [(m - 0.2) ** 2 / s**2 + 2, 2 * (m - 0.2) ** 2 + 10 * s**2])
    _, reparameterized = theory("reparameterized", 1, 0, 1, m=[m], s=[s])
    np.testing.assert_allclose(reparameterized[:, 0], [0, s**2])


def linear(z):
    return 1.5 * z.sum()


def quadratic(z):
    return (1.5 * z + 0.8 * z**2).sum()


@pytest.mark.fast(1)
@pytest.mark.parametrize(("f", "a", "b"), [(linear, 1.5, 0.0), (quadratic, 1.5, 0.8)])
def test_means_and_variances_on_a_gaussian(f, a, b):
    params = (jnp.asarray(CENTRES), jnp.log(WIDTHS))
    for num, baseline, names in [(1, 0.0, ("score", "reparameterized")), (3, 3.0, SCORES)]:
        for name, (draws, _) in many(f, normal, params, num, names, None, 20_000, baseline).items():
            draws = np.asarray(draws, np.float64).reshape(-1, 2, 3)
            expected, variance = theory(name, a, b, num, baseline)
            assert_means(draws, expected)
            square = (draws - draws.mean(0)) ** 2
            error = 5 * square.std(0) / len(draws) ** 0.5 + 1e-9
            assert (np.abs(square.mean(0) - variance) < error).all(), (name, square.mean(0), variance, error)
            assert (error < 0.5 * variance + 1e-8).all(), "this would not tell"


def test_reparameterisation_gains_the_factor_that_theory_gives():
    """f = Σ (1.5 z + 0.8 z²) in ten dimensions: hundreds, and a fourth of that with the others as a baseline."""
    m, s, names = np.full(10, 0.5), np.full(10, 0.4), ESTIMATORS[:3]
    spread, wanted = {}, {}
    for name, (draws, _) in many(quadratic, normal, (jnp.asarray(m), jnp.log(s)), 4, names, None, 20_000).items():
        spread[name] = np.var(np.asarray(draws, np.float64), axis=0).reshape(2, 10).mean(1)  # over ten alike
        wanted[name] = theory(name, 1.5, 0.8, 4, m=m, s=s)[1].mean(-1)
    for name, least in (("score", 100), ("score_leave_one_out", 20)):
        factor = wanted[name] / wanted["reparameterized"]
        assert (factor > least).all(), factor
        np.testing.assert_allclose(spread[name] / spread["reparameterized"], factor, rtol=0.05)


def bumps(z):
    return jnp.sin(2.0 * z) + 0.3 * jnp.log1p(z**2)


@pytest.mark.parametrize(
    ("family", "law", "params", "repeats"),
    [
        (normal, lambda p: scipy.stats.norm(p[0], np.exp(p[1])), (0.4, -0.3), 10_000),
        pytest.param(
            *(gamma, lambda p: scipy.stats.gamma(np.exp(p[0]), scale=np.exp(-p[1])), (0.6, 1.6), 2_000),
            marks=pytest.mark.slow,  # to compile jax's sampler
        ),
    ],
)
def test_against_differences_of_a_quadrature(family, law, params, repeats):
    def value(params):
        low, high = law(params).ppf([1e-14, 1 - 1e-14])
        x, weights = scipy.special.roots_legendre(400)
        x = low + (high - low) * (x + 1) / 2
        return (weights * (np.sin(2 * x) + 0.3 * np.log1p(x**2)) * law(params).pdf(x)).sum() * (high - low) / 2

    steps = 1e-5 * np.eye(2)
    slope = [(value(params + step) - value(params - step)) / 2e-5 for step in steps]
    assert_all(bumps, family, tuple(map(jnp.float32, params)), 8, ESTIMATORS, None, repeats, slope)


LOGITS = jnp.array([-0.7, 0.4, 1.3])


def puzzle(z):
    return (z[0] - 0.6) * (2.0 * z[1] + 1.0) + jnp.cos(z.sum())


@pytest.mark.fast(1)
@pytest.mark.parametrize("own", [None, vi.sampled_entropy, vi.analytic_entropy, vi.negative_kl(Bernoulli(0.3))])
def test_bits_against_the_sum_over_all_of_them(own):
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))

    def exact(logits):
        log_q = (states * jax.nn.log_sigmoid(logits) + (1 - states) * jax.nn.log_sigmoid(-logits)).sum(-1)
        log_prior = (states * jax.nn.log_sigmoid(0.3) + (1 - states) * jax.nn.log_sigmoid(-0.3)).sum(-1)
        reward = jax.vmap(puzzle)(states)
        if own is not None:
            reward = reward - log_q
        if own not in (None, vi.sampled_entropy, vi.analytic_entropy):
            reward = reward + log_prior
        return (jnp.exp(log_q) * reward).sum()

    assert_all(puzzle, bernoulli, (LOGITS,), 4, SCORES, own, 10_000, jax.jit(jax.grad(exact))(LOGITS))


# The ELBO of a Gaussian: prior N(0.5, 2²), one observation 1 of N(z, 1); its posterior is N(0.9, 0.8).

PRIOR = Normal(0.5, 4.0)


def likelihood(z):
    return Normal(z, 1.0).log_prob(1.0)


def joint(z):
    return likelihood(z) + PRIOR.log_prob(z)


KL = vi.negative_kl(PRIOR)


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    ("f", "own", "estimators"),
    [
        (joint, vi.sampled_entropy, ESTIMATORS),
        (joint, vi.analytic_entropy, ESTIMATORS[:3]),
        (likelihood, vi.negative_kl(PRIOR), ESTIMATORS[:3]),
    ],
)
def test_every_form_of_the_bound_has_the_same_mean(f, own, estimators):
    m, s = 0.2, 0.6
    slope = [-(m - 0.5) / 4 + (1 - m), -1.25 * s**2 + 1]
    bound = scipy.stats.norm.logpdf(1, m) - 0.5 * s**2 - (np.log(2 / s) + (s**2 + (m - 0.5) ** 2) / 8 - 0.5)
    params = (jnp.float32(m), jnp.log(jnp.float32(s)))
    for draws, values in many(f, normal, params, 4, estimators, own, 10_000).values():
        assert_means(draws, slope)
        assert_means(values.ravel(), bound)


def test_at_the_posterior_what_sticks_has_no_variance():
    params = (jnp.float32(0.9), 0.5 * jnp.log(jnp.float32(0.8)))
    sampled = many(joint, normal, params, 4, ESTIMATORS[1:], vi.sampled_entropy, 500)
    analytic = many(joint, normal, params, 4, ESTIMATORS[1:3], vi.analytic_entropy, 500)
    assert (np.std(sampled["sticking_the_landing"][0], 0) < 1e-6).all()
    assert (np.std(sampled["score_leave_one_out"][0], 0) < 1e-6).all()  # v is the same everywhere
    assert (np.std(sampled["reparameterized"][0], 0) > 0.3).all()
    assert (np.std(analytic["score_leave_one_out"][0], 0) > 0.3).all()


def test_an_own_of_both_the_law_and_the_draw():
    """E[z m] = m², and not m times a constant."""
    params = (jnp.float32(0.7), jnp.float32(-0.5))
    names = ESTIMATORS[:3]
    assert_all(jnp.zeros_like, normal, params, 4, names, lambda law, z: z * law.mean, 10_000, [1.4, 0.0])


@pytest.mark.fast(1)
@pytest.mark.parametrize("own", [None, vi.sampled_entropy, vi.analytic_entropy])
def test_derivatives_of_the_gradient_are_unbiased_too(own):
    """E θ z³ = θ (m³ + 3 m s²) in (m, log s) twice, and once more in θ; the entropy is linear in log s."""
    m, s = 0.7, 0.5

    @jax.jit
    @jax.vmap
    def slopes(key):
        def gradient(params, theta, name):
            return jnp.stack(vi.gradient(lambda z: theta * z**3, normal, params, key, 16, name, own, 0.5))

        at = ((jnp.float32(m), jnp.log(jnp.float32(s))), jnp.float32(1.0))
        return [jax.jacfwd(functools.partial(gradient, name=name), (0, 1))(*at) for name in ESTIMATORS[:3]]

    exact = [[6 * m, 6 * s**2], [6 * s**2, 12 * m * s**2], [3 * m**2 + 3 * s**2, 6 * m * s**2]]
    for (by_m, by_s), by_theta in slopes(jax.random.split(jax.random.key(0), 10_000)):
        assert_means(np.stack([by_m, by_s, by_theta], 1), exact)


@pytest.mark.slow
def test_draws_may_be_pytrees_and_parameters_batched():
    """Independent a and b, E[a² b] = (m² + s²) E b; each row of parameters as by itself."""

    def family(params):
        return vi.Factorised({"a": normal(params["a"]), "b": normal(params["b"])})

    def f(z):
        return (z["a"] ** 2 * z["b"]).sum()

    params = {"a": jnp.array([[0.3, 0.8], [-0.2, -0.5]]), "b": jnp.array([[0.5, 1.0], [0.2, -0.4]])}
    (m, log_s), (mean, _) = params["a"], params["b"]
    square = np.exp(2 * log_s)
    exact = np.array([[2 * m * mean, 2 * square * mean], [m**2 + square, 0 * m]])
    assert_all(f, family, params, 16, ("score_leave_one_out", "reparameterized"), None, 4_000, exact.ravel())

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def gradient(params, key):
        return vi.gradient(f, family, params, key, 3, "score", vi.sampled_entropy)

    rows = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), params)
    both = gradient(rows, jax.random.key(0))
    one = gradient(jax.tree.map(lambda leaf: leaf[1:], rows), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:], b, rtol=1e-5, atol=1e-5), both, one)


def test_the_moving_average_weighs_the_past():
    values = np.random.default_rng(0).normal(2, 1, (5, 3))
    average = vi.MovingAverage()
    assert average.value == 0
    for row in values:
        average = average.update(jnp.asarray(row), 0.7)
    np.testing.assert_allclose(
        average.value, np.average(values.mean(1), weights=0.7 ** np.arange(4, -1, -1)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"estimator": "exact"}, "estimator must be one of score, "),
        ({"num": 0}, "num must be a whole number of at least 1"),
        ({"num": 2.0}, "num must be"),
        ({"num": 1, "estimator": "score_leave_one_out"}, "at least 2"),
        ({"estimator": "sticking_the_landing", "own": vi.analytic_entropy}, "own must be sampled_entropy"),
        ({"f": lambda z: z[None]}, "single number"),
        ({"family": lambda p: Bernoulli(p[0])}, "Bernoulli"),
        ({"family": lambda p: vi.Factorised((normal(p), Bernoulli(p[0]))), "f": lambda z: z[0] * z[1]}, "Bernoulli"),
        ({"family": lambda p: DiscretizedNormal(p[0], 1.0)}, "DiscretizedNormal"),
        ({"family": lambda p: DiscretizedLogistic(p[0], 1.0), "estimator": "sticking_the_landing"}, "Logistic"),
    ],
)
def test_what_cannot_be_is_refused(change, match):
    arguments = {"f": lambda z: z, "family": normal, "params": (jnp.float32(0.0), jnp.float32(0.0))}
    arguments |= {"key": jax.random.key(0), "num": 4} | change
    with pytest.raises(InputError, match=match):
        vi.gradient(**arguments)


def test_integers_are_no_path_for_a_derivative():
    class Coin:
        def __init__(self, logit):
            self.logit = logit

        def sample(self, key):
            return jax.random.bernoulli(key, jax.nn.sigmoid(self.logit)).astype(int)

        def log_prob(self, z):
            return Bernoulli(self.logit).log_prob(z)

    with pytest.raises(InputError, match="type int32"):
        vi.gradient(lambda z: z * 1.0, Coin, jnp.float32(0.0), jax.random.key(0), 2)
    slope = 2 * scipy.special.expit(0.4) * scipy.special.expit(-0.4)
    assert_all(lambda z: 2.0 * z, Coin, jnp.float32(0.4), 2, SCORES, None, 4000, slope)
