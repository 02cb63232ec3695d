"""Conditioning against exact posteriors: affine recursions, quadrature over the prior, enumeration of bits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from diffjax import conditioning, predictions, processes, reference, samplers, schedules
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.predictions import Prediction


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Chains on Gaussian data, followed exactly -----------------------------------------------------------------------


def followed(process, predict, dim):
    """Mean and covariance of what `ancestral(process, "forward")` draws, no sampling: every kernel is affine in x_t.

    All the steps are evaluated in one batch, at 0 and at the unit vectors. The last step takes the kernel's mean.
    """
    grid = process.schedule.times
    s, t = grid[:-1], grid[1:]

    def kernel(x):
        x = jnp.broadcast_to(x, (len(s), dim))
        k = process.reverse(predict(x, t), x, s, t, "forward")
        return k.mean, jnp.broadcast_to(k.variance, k.mean.shape)

    means, variances = jax.jit(jax.vmap(kernel))(jnp.concatenate([jnp.zeros((1, dim)), jnp.eye(dim)]))
    shift, noise = np.asarray(means[0]), np.array(variances[0])
    slope = np.moveaxis(np.asarray(means[1:] - means[0]), 0, -1)
    noise[0] = 0
    mean, cov = np.zeros(dim), np.eye(dim)
    for a, b, v in zip(slope[::-1], shift[::-1], noise[::-1], strict=True):
        mean, cov = a @ mean + b, a @ cov @ a.T + np.diag(v)
    return mean, cov


def gaussian(cov):
    cov = jnp.asarray(cov, float)
    return reference.GaussianMixture(jnp.ones(1), jnp.zeros((1, len(cov))), cov[None])


def linear(num_steps):
    """DDPM's schedule at any number of steps; at T, the first and the last beta are 0.1/T and 20/T."""
    return processes.gaussian(schedules.linear(num_steps, 0.1 / num_steps, 20 / num_steps))


@pytest.mark.slow
def test_white_gaussian_unbiased_and_biased(x64):
    # p = N(0, 1), y = 1, tau = 1. Steps of at most 0.02: errors of first order stay below 1e-3.
    process = linear(1000)
    predict, observation = gaussian([[1.0]]).predict(process.schedule), conditioning.denoising(jnp.ones(1), 1.0)

    def expected(x, s):  # by hand: x_0 | x_s ~ N(alpha x_s, sigma²)
        alpha, sigma = process.schedule.alpha(s), process.schedule.sigma(s)
        return -0.5 * (1 - alpha * x[:, 0]) ** 2 / (1 + sigma**2)

    probe = jnp.zeros((2, 1))
    unbiased = [
        (process, conditioning.given(process, predict, observation)),
        (process, conditioning.given(process, predict, observation, "isotropic")),
        (process, conditioning.guided(process, predict, expected)),
        (conditioning.perturbed(process, expected, probe), predict),
    ]
    for p, f in unbiased:
        mean, cov = followed(p, f, 1)
        np.testing.assert_allclose(mean, 1 / 2, atol=1e-3)
        np.testing.assert_allclose(cov, 1 / 2, atol=1e-3)
    biased = [conditioning.perturbed(process, observation.log_r, probe), conditioning.tilted(process, observation)]
    for p in biased:
        mean, cov = followed(p, predict, 1)
        np.testing.assert_allclose(mean, 2 / 3, atol=1e-3)
        np.testing.assert_allclose(cov, 1 / 3, atol=1e-3)


def test_inpainting_a_correlated_gaussian(x64):
    rho, y = 0.8, 1.5
    process = linear(1000)
    prior = gaussian([[1.0, rho], [rho, 1.0]])
    predict = prior.predict(process.schedule)
    observation = conditioning.inpainting(jnp.array([y, jnp.nan]), jnp.array([True, False]))

    mean, cov = followed(process, conditioning.given(process, predict, observation), 2)
    np.testing.assert_allclose(mean, [y, rho * y], atol=1e-3)
    np.testing.assert_allclose(cov, [[0, 0], [0, 1 - rho**2]], atol=1e-3)

    # The delta on clean pixels converges to the docstring's numbers as the steps shorten.
    def integrand(u):
        return np.sqrt(u) * (1 - rho**2 * u**2) ** -1.5

    biased_mean = rho * y * np.sqrt(1 - rho**2) * scipy.integrate.quad(integrand, 0, 1)[0]
    biased_variance = (1 - rho**2) * np.arctanh(rho) / rho
    np.testing.assert_allclose([biased_mean / y, biased_variance], [0.606, 0.494], atol=5e-4)
    mean, cov = followed(conditioning.tilted(process, observation), predict, 2)
    np.testing.assert_allclose(mean, [y, biased_mean], atol=2e-3)
    np.testing.assert_allclose(cov, [[0, 0], [0, biased_variance]], atol=2e-3)
    coarse = linear(250)
    worse, _ = followed(conditioning.tilted(coarse, observation), prior.predict(coarse.schedule), 2)
    assert abs(mean[1] - biased_mean) < 0.5 * abs(worse[1] - biased_mean)


@pytest.mark.slow
def test_full_covariance_is_exact_for_any_gaussian_and_pattern_of_knowledge(x64):
    a = np.random.default_rng(0).normal(size=(4, 4))
    prior = gaussian(a @ a.T + 0.2 * np.eye(4))
    process = processes.gaussian(schedules.vp())
    y, precision = jnp.array([0.3, -1.0, 0.8, jnp.nan]), jnp.array([jnp.inf, 2.0, 0.5, 0.0])
    xt, t = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4))), jnp.array([0.01, 0.1, 0.3, 0.6, 1.0])

    @jax.jit
    def exact(y, precision):
        return prior.posterior(y, precision).predict(process.schedule)(xt, t).value

    @jax.jit
    def given(y, precision):
        observation = conditioning.Observation(y, precision)
        return conditioning.given(process, prior.predict(process.schedule), observation)(xt, t).value

    np.testing.assert_allclose(given(y, precision), exact(y, precision), atol=1e-8)
    # a batch of observations, each its own
    back = exact(y[::-1], precision[::-1])
    rows = given(
        jnp.stack([y, y[::-1], y, y, y[::-1]]), jnp.stack([precision, precision[::-1]])[np.array([0, 1, 0, 0, 1])]
    )
    first = np.array([True, False, True, True, False])[:, None]
    np.testing.assert_allclose(rows, np.where(first, exact(y, precision), back), atol=1e-8)


def test_isotropic_covariance_on_a_correlated_gaussian(x64):
    # The docstring's bias, by DDPM's algorithm 2 in numpy: x̂_0 = A x, and with A's first row a the guidance is
    # a (y - x̂_0,1)/alpha, all affine; the known x̂_0,1 is then y.
    process, cov, y = linear(1000), np.array([[1.0, 0.8], [0.8, 1.0]]), 1.5
    mean, second = np.zeros(2), np.eye(2)
    betas = np.linspace(1e-4, 0.02, 1000)
    bars = np.cumprod(1 - betas)
    for i in range(999, -1, -1):
        bar, beta, before = bars[i], betas[i], bars[i - 1] if i else 1.0
        a = np.sqrt(bar) * cov @ np.linalg.inv(bar * cov + (1 - bar) * np.eye(2))
        pull = np.sqrt(before) * beta / (1 - bar)
        guided, shift = a - np.outer(a[0], a[0]) / bar**0.5, a[0] * y / bar**0.5
        guided[0], shift[0] = 0, y
        slope = np.sqrt(1 - beta) * (1 - before) / (1 - bar) * np.eye(2) + pull * guided
        mean = slope @ mean + pull * shift
        second = slope @ second @ slope.T + (beta * np.eye(2) if i else 0)
    np.testing.assert_allclose([mean[1] / y, second[1, 1]], [0.767, 0.379], atol=1e-3)
    observation = conditioning.inpainting(jnp.array([y, 0.0]), jnp.array([True, False]))
    predict = gaussian(cov).predict(process.schedule)
    got, spread = followed(process, conditioning.given(process, predict, observation, "isotropic"), 2)
    np.testing.assert_allclose(got, mean, atol=1e-5)
    np.testing.assert_allclose(spread, second, atol=1e-5)


# A mixture -------------------------------------------------------------------------------------------------------

W, M, C = np.array([0.4, 0.6]), np.array([-1.0, 1.2]), np.array([0.3, 0.5])
Y, TAU = 0.5, 0.5


def mixture():
    return reference.GaussianMixture(jnp.asarray(W), jnp.asarray(M)[:, None], jnp.asarray(C)[:, None, None])


def posterior_moments():
    """Mean and variance of p(x) r(x)/Z by quadrature."""
    x = np.linspace(-6, 6, 20_001)
    p = scipy.stats.norm.pdf(x[:, None], M, np.sqrt(C)) @ W * np.exp(-0.5 * (Y - x) ** 2 / TAU**2)
    mean = (p * x).sum() / p.sum()
    return mean, (p * (x - mean) ** 2).sum() / p.sum()


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", ["eps", "x0", "v", "score"])
def test_guided_is_the_posterior_s_own_prediction(kind):
    # In float32, at 1e-4 of the noise; log r_t is the mixture's, itself tested by quadrature.
    process = processes.gaussian(schedules.vp())
    observation = conditioning.denoising(jnp.array([Y]), TAU)
    prior = mixture()
    exact = jax.jit(lambda xt, t: prior.posterior(*observation).predict(process.schedule)(xt, t))

    def predict(xt, t):
        prediction = prior.predict(process.schedule)(xt, t)
        value = predictions.convert(prediction, kind, process, xt, t)
        return Prediction(value, kind, jnp.full_like(xt, 0.25))

    xt = jnp.linspace(-2, 2, 9)[:, None]

    @jax.jit
    def guide(xt, t):
        log_r = prior.log_expected(process.schedule, *observation)
        guided = conditioning.guided(process, predict, log_r)(xt, t)
        return guided, predictions.convert(guided, "eps", process, xt, t)

    for t in (0.05, 0.3, 0.9):
        guided, got = guide(xt, t)
        assert guided.kind == kind
        np.testing.assert_allclose(guided.log_var, 0.25)
        np.testing.assert_allclose(got, exact(xt, t).value, atol=3e-4 if kind == "x0" else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heun", "ddim"])
def test_deterministic_samplers_reach_the_posterior_of_a_mixture(name, x64):
    # In one dimension the flow is a function of the prior's z: its moments are integrals over N(0, 1), no sampling.
    process = processes.gaussian(schedules.vp(0.1, 40.0))  # at t = 1, alpha = 4e-5: the prior is N(0, 1) to 1e-4
    prior, observation = mixture(), conditioning.denoising(jnp.array([Y]), TAU)
    predict = prior.predict(process.schedule)
    z = jnp.linspace(-6, 6, 121)[:, None]
    weight = np.asarray(scipy.stats.norm.pdf(z[:, 0]))
    weight /= weight.sum()
    times = jnp.linspace(1, 0, (100 if name == "heun" else 500) + 1) ** 2

    def moments(predict):
        run = jax.jit(
            lambda z: samplers.denoise(getattr(samplers, name)(process), predict, jax.random.key(0), z, times)
        )
        x = np.asarray(run(z))[:, 0]
        mean = weight @ x
        return mean, weight @ (x - mean) ** 2

    mean, variance = posterior_moments()
    exact = jax.jit(prior.posterior)(*observation)
    np.testing.assert_allclose([exact.mean[0], exact.cov[0, 0]], [mean, variance], rtol=1e-6)
    log_r = prior.log_expected(process.schedule, *observation)
    tolerance = 1e-3 if name == "heun" else 4e-3
    np.testing.assert_allclose(moments(conditioning.guided(process, predict, log_r)), [mean, variance], atol=tolerance)
    if name == "ddim":
        return
    # p(x_0 | x_t) is not Gaussian here: `given` is near, not there, and nearer than r held constant.
    held, _ = moments(conditioning.guided(process, predict, observation.log_r))
    for covariance in ("full", "isotropic"):
        got, spread = moments(conditioning.given(process, predict, observation, covariance))
        assert abs(got - mean) < 0.1 < abs(held - mean), (covariance, got, held)
        assert abs(spread - variance) < 0.03


def density_recursion(process, predict, x):
    """Mean and variance after the chain of `reverse` kernels, all steps with "forward" noise but the last, which takes
    the mean: densities on a grid, one step a matrix product."""
    grid = np.asarray(process.schedule.times)

    @jax.jit
    def kernel(s, t):
        k = process.reverse(predict(x[:, None], jnp.full(len(x), t)), x[:, None], s, t, "forward")
        return k.mean[:, 0], jnp.broadcast_to(k.variance, k.mean.shape)[:, 0]

    points, width = np.asarray(x), float(x[1] - x[0])
    p = scipy.stats.norm.pdf(points)
    for t, s in itertools.pairwise(grid[::-1]):
        mean, variance = (np.asarray(a) for a in kernel(s, t))
        if s == 0:
            first = width * p @ mean
            return first, width * p @ (mean - first) ** 2
        p = width * scipy.stats.norm.pdf(points[:, None], mean, np.sqrt(variance)) @ p


@pytest.mark.slow
def test_constant_r_on_a_mixture_has_the_bias_of_a_diffusion_with_that_drift(x64):
    # Held constant, r adds β ∇ log r to the reverse drift -½βx... of dx = β(½x + score + ∇ log r) dτ + √β dw: an
    # independent integration of that equation's density (Fokker-Planck by a matrix exponential) is the reference.
    process = linear(300)
    prior, observation = mixture(), conditioning.denoising(jnp.array([Y]), TAU)
    predict = prior.predict(process.schedule)
    x = jnp.linspace(-5, 5, 401)
    mean, variance = density_recursion(conditioning.tilted(process, observation), predict, x)
    want = fokker_planck(process.schedule)
    np.testing.assert_allclose([mean, variance], want, atol=1e-2)


def fokker_planck(schedule):
    h, n = 0.025, 401
    x = (np.arange(n) - n // 2) * h
    edges = 0.5 * (x[1:] + x[:-1])
    p = scipy.stats.norm.pdf(x) * h
    rates = np.concatenate([np.linspace(float(schedule.integrated_rate(1.0)), 0.02, 600), np.geomspace(0.02, 1e-5, 40)])
    for rate, below in itertools.pairwise(np.append(rates, 0.0)):
        a = np.exp(-0.25 * (rate + below))
        v = a * a * C + 1 - a * a
        each = W * scipy.stats.norm.pdf(edges[:, None], a * M, np.sqrt(v))
        score = (each * (a * M - edges[:, None]) / v).sum(1) / each.sum(1)
        drift = 0.5 * edges + score + (Y - edges) / TAU**2
        # Scharfetter-Gummel fluxes between neighbours keep p positive; implicit Euler in the rate
        z = 2 * drift * h
        up, down = (0.5 / h**2 * np.where(abs(z) < 1e-9, 1.0, -q / np.expm1(-q)) for q in (z, -z))
        diagonal = np.zeros(n)
        diagonal[:-1] += up
        diagonal[1:] += down
        step = rate - below
        bands = np.zeros((3, n))
        bands[0, 1:], bands[1], bands[2, :-1] = -step * down, 1 + step * diagonal, -step * up
        p = scipy.linalg.solve_banded((1, 1), bands, p)
    mean = p @ x
    return mean, p @ (x - mean) ** 2


@pytest.mark.slow
def test_denoising_start_draws_from_the_posterior_of_any_model():
    # Exact for a mixture, as `given` is not: the reverse process from x_t = alpha y.
    process = linear(1000)
    n = 20_000
    y = jnp.full((n, 1), Y)
    x, times = conditioning.denoising_start(process, y, TAU, process.schedule.times[::-1])
    alpha, sigma = process.schedule.alpha(times[0]), process.schedule.sigma(times[0])
    np.testing.assert_allclose(sigma / alpha, TAU, rtol=1e-4)
    np.testing.assert_allclose(x, alpha * y, rtol=1e-6)
    assert np.isin(np.asarray(times[1:]), np.asarray(process.schedule.times)).all()
    assert 0 < times[0] - times[1] < 1e-3
    assert times[-1] == 0
    stepper, predict = samplers.ancestral(process, "forward"), mixture().predict(process.schedule)
    draws = np.asarray(jax.jit(lambda x: samplers.denoise(stepper, predict, jax.random.key(0), x, times))(x))[:, 0]
    mean, variance = posterior_moments()
    assert abs(draws.mean() - mean) < 5 * np.sqrt(variance / n) + 1e-3
    error = (draws - mean) ** 2 - variance
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(n) + 1e-3


# Bits ------------------------------------------------------------------------------------------------------------

BITS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
STATES = jnp.asarray(BITS, jnp.float32)
WB = np.array([0.3, 0.7])
PB = np.array([[0.1, 0.8, 0.9], [0.8, 0.3, 0.2]])
TABLE = sum(w * np.prod(np.where(BITS == 1, p, 1 - p), axis=1) for w, p in zip(WB, PB, strict=True))


def bit_mixture():
    return reference.BernoulliMixture(jnp.asarray(WB), jnp.asarray(PB))


def paper(num_steps, prior=0.4):
    """The paper's rates: nothing is left of x_0 at the end, and x_T is the prior exactly."""
    return processes.binomial(1 / np.arange(num_steps, 0, -1), prior)


def law(process, predict, num_steps):
    """P of every state after each chain of so many of the process's steps: the prior times the kernels' matrices."""
    states = jnp.asarray(BITS)

    @jax.jit
    @jax.vmap
    def matrix(s, t):
        one = process.reverse(predict(states, jnp.full(8, t)), states, s, t).mean[:, None]
        return jnp.prod(jnp.where(states == 1, one, 1 - one), axis=-1)  # [from, to]

    one = np.asarray(process.prior((3,)).mean)
    laws = []
    for n in num_steps:
        times = samplers.spaced(process.schedule.times, n).reshape(-1)
        p = np.prod(np.where(BITS == 1, one, 1 - one), axis=1)
        for part in np.arange(n).reshape(-1, num_steps[0]):  # one compilation for all
            for m in np.asarray(matrix(times[part + 1], times[part])):
                p = p @ m
        laws.append(p)
    return laws


OBSERVATIONS = {
    "soft": ([1.0, 1.0, 0.0], [1.0, 2.5, 0.0]),
    "known": ([1.0, 1.0, np.nan], [np.inf, np.inf, 0.0]),
    "one known": ([0.0, 1.0, 0.0], [0.0, np.inf, 0.0]),
}


def bayes(y, precision):
    off = np.where((np.array(y) == BITS) | (np.array(precision) == 0), 0.0, 0.5 * np.array(precision))
    p = TABLE * np.exp(-off.sum(1))
    return p / p.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "which"), [("guided", "known"), ("perturbed", "soft"), ("given", "one known"), ("tilted", "soft")]
)
def test_chains_of_bits_tend_to_the_posterior_or_not(method, which, x64):
    y, precision = OBSERVATIONS[which]
    observation = conditioning.Observation(jnp.array(y), jnp.array(precision))
    process, mix, want = paper(200), bit_mixture(), bayes(y, precision)
    predict, log_r = mix.predict(process), mix.log_expected(process, *observation)
    match method:
        case "guided":
            chain = process, conditioning.guided(process, predict, log_r)
        case "perturbed":
            chain = conditioning.perturbed(process, log_r, jnp.asarray(BITS[:1])), predict
        case "given":
            chain = process, conditioning.given(process, predict, observation)
        case "tilted":
            chain = conditioning.tilted(process, observation), predict
    coarse, fine = (0.5 * np.abs(p - want).sum() for p in law(*chain, (50, 200)))
    if method == "tilted":
        assert fine > 0.8 * coarse
        assert fine > 0.05
    else:
        assert fine < 0.35 * coarse  # four times the steps, a quarter of the distance
        assert fine < 1e-2


@pytest.mark.slow
def test_guided_bits_are_the_posterior_s_own_prediction():
    process, mix = paper(100), reference.BernoulliMixture(jnp.float32(WB), jnp.float32(PB))

    @jax.jit
    def both(y, precision, t):
        guided = conditioning.guided(process, mix.predict(process), mix.log_expected(process, y, precision))
        exact = mix.posterior(y, precision).predict(process)
        return [f(STATES, t).value for f in (guided, exact, mix.predict(process))]

    for (y, precision), t in itertools.product(OBSERVATIONS.values(), (0.01, 0.3, 0.9)):
        got, want, _ = both(jnp.array(y), jnp.array(precision), jnp.full(8, t))
        np.testing.assert_allclose(jax.nn.sigmoid(got), jax.nn.sigmoid(want), atol=1e-4)
    # nothing is left of x_0 at t = 1: the prediction is the unconditional one, and no NaN
    got, _, plain = both(jnp.array(y), jnp.array(precision), jnp.ones(8))
    np.testing.assert_allclose(got, plain, rtol=1e-6)


def test_expected_r_of_independent_bits_is_exact():
    p = np.array([[0.9, 0.2, 0.6]], np.float32)
    process, mix = paper(100), reference.BernoulliMixture(jnp.ones(1), jnp.asarray(p))
    predict, t = mix.predict(process), jnp.full(8, 0.4)
    y, precision = jnp.array([1.0, 1.0, 0.0]), jnp.array([1.0, jnp.inf, 0.0])
    observation = conditioning.Observation(y, precision)

    @jax.jit
    def both():
        given, exact = conditioning.given(process, predict, observation), mix.posterior(y, precision).predict(process)
        r, exact_r = conditioning.expected(process, predict, observation), mix.log_expected(process, y, precision)
        return [f(STATES, t) for f in (r, exact_r, given, exact)]

    r, exact_r, given, exact = both()
    np.testing.assert_allclose(r, exact_r, atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(given.value), jax.nn.sigmoid(exact.value), atol=1e-5)


@pytest.mark.slow
def test_bernoulli_kernels_are_the_printed_formula():
    process = paper(10)
    logits = jnp.array([[0.3, -1.0, 2.0]])
    xt = jnp.array([[1.0, 0.0, 1.0]])
    prediction = Prediction(logits, "logits")
    observation = conditioning.flipped(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.1, 0.3, 0.5]))
    c = np.asarray(process.reverse(prediction, xt, 0.3, 0.4).mean, np.float64)
    d = np.array([0.9, 0.3, 0.5])  # r(1)/(r(0) + r(1))
    want = c * d / (c * d + (1 - c) * (1 - d))
    for wrapped in (conditioning.tilted(process, observation), conditioning.perturbed(process, observation.log_r, xt)):
        np.testing.assert_allclose(wrapped.reverse(prediction, xt, 0.3, 0.4).mean, want, rtol=1e-5)
    known = conditioning.inpainting(jnp.array([0.0, 1.0, jnp.nan]), jnp.array([True, True, False]))
    for wrapped in (conditioning.tilted(process, known), conditioning.perturbed(process, known.log_r, xt)):
        got = wrapped.reverse(Prediction(jnp.array([[jnp.inf, 0.3, 0.3]]), "logits"), xt, 0.3, 0.4).mean
        assert np.isfinite(got).all()
    got = conditioning.tilted(process, known).reverse(prediction, xt, 0.3, 0.4).mean
    np.testing.assert_allclose(got[0, :2], [0, 1])
    # r that does not factorise: d from r at either value of the bit, the others as in x_t
    r = np.random.default_rng(0).uniform(0.2, 1.0, 8)

    def log_r(x, s):
        return jnp.log(jnp.asarray(r, jnp.float32))[(x @ jnp.array([4.0, 2.0, 1.0])).astype(int)]

    got = conditioning.perturbed(process, log_r, xt).reverse(prediction, xt, 0.3, 0.4).mean
    on, off = r[[5, 7, 5]], r[[1, 5, 4]]
    d = on / (on + off)
    np.testing.assert_allclose(got, c * d / (c * d + (1 - c) * (1 - d)), rtol=1e-5)


@pytest.mark.slow
def test_denoising_start_of_bits():
    process = paper(200, prior=0.5)
    y = jnp.tile(jnp.array([1.0, 1.0, 0.0]), (40_000, 1))
    x, times = conditioning.denoising_start(process, y, 0.1, process.schedule.times[::-1])
    np.testing.assert_allclose(process.marginal(jnp.ones(1), times[0]).mean, 0.9, rtol=1e-5)
    predict = reference.BernoulliMixture(jnp.float32(WB), jnp.float32(PB)).predict(process)
    stepper = samplers.ancestral(process)
    draws = jax.jit(lambda x: samplers.denoise(stepper, predict, jax.random.key(0), x, times))(x)
    counts = np.bincount((np.asarray(draws) @ [4, 2, 1]).astype(int), minlength=8) / len(y)
    likelihood = np.prod(np.where(np.array([1.0, 1.0, 0.0]) == BITS, 0.9, 0.1), axis=1)
    want = TABLE * likelihood / (TABLE @ likelihood)
    assert (np.abs(counts - want) < 5 * np.sqrt(want / len(y)) + 3e-3).all()  # 3e-3: kernels that factorise


# Images ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inpainting_images_with_a_network():
    process = processes.gaussian(schedules.cosine(50))
    weights = 0.3 * jax.random.normal(jax.random.key(0), (3, 3, 1, 1))

    def network(x, t):
        x = jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.tanh(x)

    y = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1), minval=-1.0)
    mask = np.zeros((8, 8, 1), bool)
    mask[:, :5] = True
    predict = predictions.v(network)
    observation = conditioning.inpainting(jnp.where(mask, y, jnp.nan), mask)
    known = np.broadcast_to(mask, y.shape)

    def run(chain, predict):
        stepper, times = samplers.ancestral(chain), process.schedule.times[::-1]
        return jax.jit(lambda key: samplers.sample(stepper, predict, key, times, y.shape))(jax.random.key(2))

    given = conditioning.given(process, predict, observation, "isotropic")
    x = np.asarray(run(process, given))
    assert np.abs(x - y)[known].max() < 0.05
    assert np.abs(x - y)[~known].mean() > 0.3  # elsewhere it is another picture, and not NaN
    x = np.asarray(run(conditioning.tilted(process, observation), predict))
    np.testing.assert_array_equal(x[known], np.asarray(y)[known])
    assert np.isfinite(x).all()


# Bad input -------------------------------------------------------------------------------------------------------


def test_observations_name_what_is_wrong():
    y = jnp.zeros((2, 8, 8, 1))
    with pytest.raises(InputError, match=r"boolean.*float32.*astype"):
        conditioning.inpainting(y, jnp.ones((8, 8, 1)))
    for shape in ((8, 8), (4, 8, 1), (2, 8, 8, 3), (1, 2, 8, 8, 1)):
        with pytest.raises(InputError, match=r"mask has shape .*\(2, 8, 8, 1\)"):
            conditioning.inpainting(y, np.ones(shape, bool))
    for shape in ((8, 8, 1), (2, 8, 8, 1), (1, 8, 1), (2, 1, 1, 1)):
        assert conditioning.inpainting(y, np.ones(shape, bool)).precision.shape == y.shape
    for std in (0.0, -1.0, jnp.nan):
        with pytest.raises(InputError, match="noise_std must be positive"):
            conditioning.denoising(y, std)
        with pytest.raises(InputError, match="must be positive"):
            conditioning.denoising_start(processes.gaussian(schedules.linear(10)), y, std, [1.0, 0.0])
    with pytest.raises(InputError, match=r"0 or 1, not 0\.5"):
        conditioning.flipped(jnp.array([0.0, 0.5]), 0.1)
    for probability in (-0.1, 0.6, jnp.nan):
        with pytest.raises(InputError, match=r"\[0, 0.5\]"):
            conditioning.flipped(jnp.ones(2), probability)


@pytest.mark.slow
def test_methods_name_what_is_wrong():
    bits, real = paper(10), processes.gaussian(schedules.linear(10))
    xt, t = jnp.zeros((2, 3)), jnp.full(2, 0.5)

    def predict(xt, t):
        return Prediction(xt, "eps")

    grey = conditioning.denoising(jnp.array([0.0, 0.3, 1.0]), 0.1)
    for make in (lambda: conditioning.tilted(bits, grey), lambda: conditioning.given(bits, predict, grey)):
        with pytest.raises(InputError, match=r"0 or 1, not 0\.3"):
            make()
    wide = conditioning.denoising(jnp.zeros((2, 4)), 0.1)
    with pytest.raises(InputError, match=r"\(2, 4\).*\(2, 3\)"):
        jax.jit(conditioning.given(real, predict, wide))(xt, t)
    with pytest.raises(InputError, match="'diagonal'"):
        conditioning.given(real, predict, grey, "diagonal")
    with pytest.raises(InputError, match="isotropic"):
        jax.jit(conditioning.given(real, predict, conditioning.denoising(jnp.zeros(2000), 0.1)))(
            jnp.zeros((2, 2000)), t
        )

    def root(x, s):  # -|x - 1|, whose slope at x = 1 is NaN
        return -jnp.sqrt(((x - 1) ** 2).sum(-1))

    with pytest.raises(InputError, match="gradient of log r is not finite"):
        conditioning.perturbed(real, root, jnp.ones((2, 3)))
    with pytest.raises(InputError, match="gradient of log r is not finite"):
        conditioning.guided(real, predict, root)(jnp.ones((2, 3)), t)
    known = conditioning.inpainting(jnp.zeros(3), jnp.array([True, False, False]))
    with pytest.raises(InputError, match="gradient of log r is not finite"):
        conditioning.perturbed(real, known.log_r, jnp.ones((2, 3)))
    with pytest.raises(InputError, match="log r is NaN"):
        conditioning.perturbed(bits, lambda x, s: x.sum(-1) * jnp.nan, xt)
    for process in (bits, real):
        with pytest.raises(InputError, match=r"one number per example, \(2,\), not shape \(2, 3\)"):
            conditioning.perturbed(process, lambda x, s: x, xt)
    with pytest.raises(InputError, match="schedule's end"):
        conditioning.denoising_start(processes.gaussian(schedules.linear(10)), xt, 1e6, [1.0, 0.0])
    with pytest.raises(InputError, match=r"prior 0\.4"):
        conditioning.denoising_start(bits, xt, 0.1, [1.0, 0.0])
    with pytest.raises(InputError, match="0 or 1"):
        conditioning.denoising_start(paper(10, 0.5), xt + 0.5, 0.1, [1.0, 0.0])


# Types, rows and programs ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_narrow_types_become_float32_in_wide_mode_and_a_nan_stays_in_its_row(dtype):
    """N(0, I) seen in noise τ: E[x_0 | x_t, y] has the precisions 1, alpha²/sigma² and 1/τ². Bits: log-odds add."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        process, y, tau = processes.gaussian(schedules.vp()), np.array([0.5, -1.0]), 0.5
        xt, t = jnp.asarray([[0.25, 1.0], [np.nan, 0.5], [-0.5, 2.0]], dtype), jnp.full(3, 0.3, jnp.float32)
        predict = predictions.x0(lambda x, t: schedules.broadcast_to(process.schedule.alpha(t), x) * x)
        alpha, sigma = float(process.schedule.alpha(0.3)), float(process.schedule.sigma(0.3))
        x = np.asarray(xt, np.float64)[[0, 2]]
        want = (alpha / sigma**2 * x + y / tau**2) / (1 + (alpha / sigma) ** 2 + 1 / tau**2)
        for covariance in ("full", "isotropic"):
            given = conditioning.given(process, predict, conditioning.denoising(y, tau), covariance)
            value = jax.jit(given)(xt, t).value
            assert value.dtype == np.float32
            np.testing.assert_allclose(value[np.array([0, 2])], want, rtol=1e-4)
            assert jnp.isnan(value[1]).any()

        bits, kept = processes.binomial(schedules.vp()), float(process.schedule.alpha(0.3)) ** 2
        x, odds = np.array([[0, 1], [1, 1]]), np.array([0.4, -1.0])
        told = float(np.log1p(kept) - np.log1p(-kept))  # log q(x_t | x_0 = x_t)/q(x_t | x_0 ≠ x_t)
        predict = predictions.logits(lambda x, t: jnp.asarray(odds, x.dtype) + (2 * x - 1) * told)
        given = conditioning.given(bits, predict, conditioning.flipped(np.array([1, 0]), 0.2))
        value = jax.jit(given)(jnp.asarray(x, dtype), t[:2]).value
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, odds + (2 * x - 1) * told + np.log(4) * np.array([1, -1]), rtol=1e-4)


@pytest.mark.slow
def test_eager_calls_compile_once(compilations):
    gauss, bits, x = linear(100), paper(10, 0.5), jnp.ones((2, 3))

    def calls(a):
        a = jnp.asarray(a)

        def log_r(x, t):
            return -a * (x**2).sum(1)

        guided = conditioning.guided(bits, predictions.logits(lambda x, t: 0 * x), log_r)
        kernel = conditioning.perturbed(gauss, log_r, x)
        conditioning.perturbed(bits, log_r, x)
        return kernel.multiply(Normal(x, 0.5 * x), x, 0.5).mean, guided(x, jnp.full(2, 1e-6)).value

    calls(1.0)
    compilations.clear()
    mean, _ = calls(2.0)
    assert not compilations
    np.testing.assert_allclose(mean, 1.0 - 0.5 * 2 * 2.0)


def test_times_of_another_scale_are_named():
    for times in ([1000, 500, 0], [0.0, 0.5, 1.0], [1.0, np.nan, 0.0], 0.5):
        with pytest.raises(InputError, match="times must fall from 1 to 0"):
            conditioning.denoising_start(linear(100), jnp.ones((1, 2)), 0.5, times)
    for std in (np.nan, np.inf):
        with pytest.raises(InputError, match="noise_std must be positive and finite"):
            conditioning.denoising(jnp.ones(3), std)


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", ["x0", "velocity", "v"])
def test_guided_where_there_is_no_signal_left(kind):
    """From alpha = 0: the first estimate is the posterior's mean, and samples have the posterior's moments."""
    process, n = processes.gaussian(schedules.straight()), 4000
    mean, cov = np.array([1.0, -0.5]), np.array([[0.6, 0.3], [0.3, 0.5]])
    prior = reference.GaussianMixture(jnp.ones(1), jnp.asarray(mean, float)[None], jnp.asarray(cov, float)[None])
    observation, y, noise = conditioning.denoising(jnp.array([0.3, 0.2]), 0.4), np.array([0.3, 0.2]), 0.4
    gain = cov @ np.linalg.inv(cov + noise**2 * np.eye(2))
    want_mean, want_cov = mean + gain @ (y - mean), cov - gain @ cov
    guided = conditioning.given(process, prior.predict(process.schedule, kind), observation)

    @jax.jit
    def run(key):
        # alpha/sigma = 0.019 in place of 0 moves the estimate by that part of x_1.
        x = jax.random.normal(key, (n, 2))
        first = predictions.convert(guided(x, jnp.ones(n)), "x0", process, x, jnp.ones(n))
        return first, samplers.denoise(samplers.heun(process), guided, key, x, jnp.linspace(1.0, 0.0, 41) ** 1.5)

    first, x = (np.float64(a) for a in run(jax.random.key(0)))
    np.testing.assert_allclose(first.mean(0), want_mean, atol=5 * 0.02 / np.sqrt(n) + 0.01)
    assert first.std(0).max() < 0.02
    assert (np.abs(x.mean(0) - want_mean) < 5 * np.sqrt(np.diag(want_cov) / n) + 0.01).all()
    np.testing.assert_allclose(np.cov(x.T), want_cov, atol=5 * want_cov.max() * np.sqrt(2 / n) + 0.01)


@pytest.mark.slow
def test_particles_from_where_there_is_no_signal_are_unbiased():
    """E[Ẑ] of two particles is N(y; m, C + tau²), over many populations of a chain that ends in pure noise."""
    schedule = schedules.zero_terminal_snr(schedules.linear(8, 0.05, 0.6))
    process, num, y, tau = processes.gaussian(schedule), 4000, 0.8, 0.5
    prior = reference.GaussianMixture(jnp.ones(1), jnp.zeros((1, 1)), jnp.full((1, 1, 1), 1.0))
    predict = prior.predict(schedule, "x0")
    seen = conditioning.linear_operator(lambda x: x, jnp.array([y]), tau, (1,))
    twist = conditioning.expected(process, predict, seen)

    @jax.jit
    def evidence(keys):
        def one(key):
            return conditioning.twisted(
                process, predict, key, schedule.times[::-1], (2, 1), seen.log_r, twist, "posterior"
            ).log_evidence

        return jax.vmap(one)(keys)

    found = np.exp(np.float64(evidence(jax.random.split(jax.random.key(0), num))))
    # Of the chain itself, whose last step takes the mean: its law is Gaussian, of a variance by recursion.
    times, variance = np.float64(schedule.times)[::-1], 1.0
    for t, s in itertools.pairwise(times):
        (a_t, s_t), (a_s, s_s) = ((float(schedule.alpha(u)), float(schedule.sigma(u))) for u in (t, s))
        # E[x_0 | x_t] = a_t x_t, and q(x_s | x_t, x_0) = N(c_0 x_0 + c_t x_t, v).
        ratio = a_t / a_s
        v = s_s**2 * (s_t**2 - ratio**2 * s_s**2) / s_t**2
        c_t, c_0 = ratio * s_s**2 / s_t**2, a_s * (s_t**2 - ratio**2 * s_s**2) / s_t**2
        variance = (c_t + c_0 * a_t) ** 2 * variance + (v if s > 0 else 0.0)
    want = np.exp(-0.5 * y**2 / (variance + tau**2)) / np.sqrt(2 * np.pi * (variance + tau**2))
    assert abs(found.mean() - want) < 5 * found.std() / np.sqrt(num), (found.mean(), want)
