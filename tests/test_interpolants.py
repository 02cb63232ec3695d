"""Interpolants and bridges against Gaussians and mixtures in closed form, and the continuity equation on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import interpolants, predictions, samplers, sde
from diffjax.errors import InputError
from diffjax.interpolants import bridges
from diffjax.interpolants.mixtures import MixtureInterpolant
from diffjax.predictions import Prediction
from diffjax.reference import GaussianMixture

KEY = jax.random.key(0)
M0, S0, M1, S1 = -1.0, 0.5, 2.0, 1.5  # x_0 ~ N(M0, S0²), x_1 ~ N(M1, S1²)


def mixture(weights, means, stds):
    return GaussianMixture(np.array(weights), np.array(means)[:, None], np.square(stds)[:, None, None])


DATA = mixture([0.3, 0.7], [-2.0, 1.5], [0.4, 0.6])
SOURCE = mixture([0.5, 0.5], [-1.0, 2.5], [0.5, 0.3])


def moments(t, scale):
    """Mean and variance of x_t and half the variance's rate, of independent Gaussians."""
    var = (1 - t) ** 2 * S0**2 + t**2 * S1**2 + 2 * scale**2 * t * (1 - t)
    return (1 - t) * M0 + t * M1, var, t * S1**2 - (1 - t) * S0**2 + scale**2 * (1 - 2 * t)


def best_velocity(t, scale):
    """b(x, t) = M1 - M0 + ½ (V'/V) (x - m) as (offset, slope)."""
    mean, var, half_rate = moments(t, scale)
    return M1 - M0 - half_rate / var * mean, half_rate / var


def affine(kind, change, line):
    """(a + change[0]) + (b + change[1]) x with (a, b) = line(t)."""

    def predict(x, t):
        a, b = line(t[:, None])
        return Prediction(a + change[0] + (b + change[1]) * x, kind)

    return predict


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_between_gaussians_the_loss_is_least_at_the_velocity(scale):
    n = 20_000
    between = interpolants.interpolant(scale)
    x0 = M0 + S0 * jax.random.normal(jax.random.key(1), (n, 1))
    x1 = M1 + S1 * jax.random.normal(jax.random.key(2), (n, 1))

    @jax.jit
    def losses(t):
        def loss(change, x0, x1, key):
            predict = affine("velocity", change, lambda t: best_velocity(t, scale))
            return interpolants.velocity_loss(between, predict, key, x0[None], x1[None], t[None])[0]

        one = jax.value_and_grad(loss)
        return jax.vmap(one, (None, 0, 0, 0))(jnp.zeros(2), x0, x1, jax.random.split(KEY, n))

    for t in (0.02, 0.3, 0.9):
        value, slopes = (np.float64(x) for x in losses(jnp.array(t)))
        assert (abs(slopes.mean(0)) < 5 * slopes.std(0) / np.sqrt(n)).all()
        assert (slopes.std(0) < 20).all()  # near the ends, too, where γ' is large
        # Var(x_1 - x_0) less what x_t explains of the target: its covariance with x_t is V'/2.
        _, var, half_rate = moments(t, scale)
        want = S0**2 + S1**2 - half_rate**2 / var
        assert abs(value.mean() - want) < 5 * value.std() / np.sqrt(n)


def test_the_noise_loss_is_least_at_the_noise():
    n, t, scale = 20_000, 0.3, 0.7
    mean, var, _ = moments(t, scale)
    gamma = scale * np.sqrt(2 * t * (1 - t))
    between = interpolants.interpolant(scale)
    x0 = M0 + S0 * jax.random.normal(jax.random.key(1), (n, 1))
    x1 = M1 + S1 * jax.random.normal(jax.random.key(2), (n, 1))

    @jax.jit
    def losses(change):
        predict = affine("eps", change, lambda t: (-gamma / var * mean, gamma / var))
        return interpolants.noise_loss(between, predict, KEY, x0, x1, jnp.full(n, t))

    value = np.float64(losses(jnp.zeros(2)))
    assert abs(value.mean() - (1 - gamma**2 / var)) < 5 * value.std() / np.sqrt(n)
    for change in ([0.1, 0.0], [0.0, -0.1]):
        rise = np.float64(losses(jnp.array(change))) - value
        want = change[0] ** 2 + change[1] ** 2 * (var + mean**2)
        assert abs(rise.mean() - want) < 5 * rise.std() / np.sqrt(n)


@pytest.mark.parametrize("scale", [0.0, pytest.param(0.7, marks=pytest.mark.slow)])
def test_between_gaussians_the_flow_map_is_affine(scale):
    predict = affine("velocity", (0.0, 0.0), lambda t: best_velocity(t, scale))
    x1 = jnp.linspace(-3.0, 6.0, 7)[:, None]
    want = M0 + S0 / S1 * (x1 - M1)
    times = jnp.linspace(1.0, 0.0, 65)
    process = interpolants.PROCESS
    run = jax.jit(lambda x: samplers.denoise(samplers.heun(process), predict, KEY, x, times))
    np.testing.assert_allclose(run(x1), want, atol=1e-2)


@pytest.mark.slow
def test_the_adaptive_solver_takes_an_interpolant():
    predict = affine("velocity", (0.0, 0.0), lambda t: best_velocity(t, 0.7))
    x1, process = jnp.linspace(-3.0, 6.0, 7)[:, None], interpolants.PROCESS
    exact = jax.jit(lambda x: sde.transport(process, predict, x, 1.0, 1e-5).x)(x1)
    np.testing.assert_allclose(exact, M0 + S0 / S1 * (x1 - M1), atol=1e-3)


@pytest.mark.fast(1)
@pytest.mark.parametrize("weights", [[[0.3, 0.0], [0.2, 0.5]], None])
def test_velocity_of_mixtures_carries_the_marginal(weights):
    """∂p/∂t = -∂(b p)/∂x, by central differences; η = -γ ∂ log p/∂x; E[x_0 | x_t] has the mean of x_0."""
    with jax.enable_x64(True):
        weights = None if weights is None else jnp.array(weights)
        exact = MixtureInterpolant(DATA, SOURCE, interpolants.interpolant(0.5), weights)
        x, h = jnp.linspace(-6.0, 6.0, 2001)[:, None], 1e-5

        @jax.jit
        def fields(t):
            law = exact.at(t)
            values = [predict(x, t).value[:, 0] for predict in (exact.velocity(), exact.noise(), exact.end())]
            return [jnp.exp(law.log_prob(x)), *values]

        for t in (0.1, 0.6):
            p, b, noise, end = (np.asarray(v) for v in fields(t))
            step = x[1, 0] - x[0, 0]
            rate = (fields(t + h)[0] - fields(t - h)[0]) / (2 * h)
            np.testing.assert_allclose(rate, -np.gradient(b * p, step, edge_order=2), atol=3e-4)
            assert np.abs(rate).max() > 0.3
            gamma = 0.5 * np.sqrt(2 * t * (1 - t))
            inner = p > 1e-3
            slope = np.gradient(np.log(p), step)
            np.testing.assert_allclose(noise[inner], -gamma * slope[inner], atol=2e-3)
            assert np.sum(p * end) * step == pytest.approx(float(DATA.mean[0]), abs=1e-6)
            # x_t = (1 - t) E[x_0] + t E[x_1] + γ η, and b = E[x_1] - E[x_0] + γ' η
            ends = (np.asarray(x[:, 0]) - (1 - t) * end - gamma * noise) / t
            rate = 0.5 * (1 - 2 * t) / np.sqrt(2 * t * (1 - t))
            np.testing.assert_allclose(b, ends - end + rate * noise, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["constant", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gamma", "ordinary"))]
)
def test_every_diffusion_has_the_marginals(name):
    between = interpolants.interpolant(0.5)
    epsilon = {
        "gamma": lambda t: between.gamma(t) ** 2,
        "constant": lambda t: 0.2 + 0.0 * t,
        "ordinary": lambda t: 0.0 * t,
    }[name]
    exact = MixtureInterpolant(DATA, SOURCE, between)
    stepper = interpolants.stochastic(between, exact.noise(), epsilon)
    n, times = 1000, jnp.linspace(1.0, 0.0, 61)
    run = jax.jit(lambda key, x: samplers.denoise(stepper, exact.velocity(), key, x, times, lambda state: state.x))
    rng = np.random.default_rng(0)
    x, path = run(KEY, drawn_of(SOURCE, rng, n))
    # 100,000 draws of the truth: of x_t = ½ (x_0 + x_1) + γ z, γ² = ½ · ½², and of x_0.
    ends = [drawn_of(law, rng, 100_000) for law in (DATA, SOURCE)]
    half = 0.5 * (ends[0] + ends[1]) + 0.5 * np.sqrt(0.5) * rng.normal(size=ends[0].shape)
    for drawn, fresh in ((path[29], half), (x, ends[0])):
        drawn, fresh = np.float64(drawn)[:, 0], fresh[:, 0]
        for f in (lambda x: x, np.square, lambda x: (x > 0) * 1.0, lambda x: np.cos(2 * x)):
            error = f(fresh).std() * np.sqrt(1 / n + 1 / len(fresh))
            assert abs(f(drawn).mean() - f(fresh).mean()) < 5 * error


def drawn_of(law, rng, n):
    """Draws (n, 1) by numpy."""
    which = rng.choice(len(law.weights), n, p=law.weights)
    return law.means[which] + np.sqrt(law.covs[which, 0]) * rng.normal(size=(n, 1))


def bridge_of_gaussians(s, sigma, covariance):
    """E[x_0 | x_t] of jointly Gaussian ends of mean 0, variances s² and 1."""

    def end(x, t):
        t = t[:, None]
        var = (1 - t) ** 2 * s**2 + t**2 + 2 * t * (1 - t) * covariance + sigma**2 * t * (1 - t)
        return ((1 - t) * s**2 + t * covariance) / var * x

    return predictions.x0(end)


@pytest.mark.fast(1)
@pytest.mark.parametrize("entropic", [False, True])
def test_a_bridge_keeps_the_ends_and_the_schroedinger_bridge_their_coupling(entropic):
    """cov(x_0, x_1) = ½ (√(4 s² + σ⁴) - σ²) is the entropic coupling's. From independent pairs the ends are as given,
    but the Markov process couples them."""
    s, sigma, n = 2.0, 1.0, 20_000
    want = 0.5 * (np.sqrt(4 * s**2 + sigma**4) - sigma**2)
    predict = bridge_of_gaussians(s, sigma, want if entropic else 0.0)
    x1 = jax.random.normal(jax.random.key(1), (n, 1))
    times = jnp.linspace(1.0, 0.0, 101)
    x0 = jax.jit(lambda key, x: samplers.denoise(bridges.bridge(sigma), predict, key, x, times))(KEY, x1)
    product, x0 = np.float64(x0 * x1)[:, 0], np.float64(x0)[:, 0]
    assert abs(x0.var() - s**2) < 5 * s**2 * np.sqrt(2 / n) + 0.02 * s**2  # the steps' own error is 1 / their number
    far = abs(product.mean() - want) > 5 * product.std() / np.sqrt(n) + 0.02
    assert far == (not entropic)
    if not entropic:
        assert product.mean() > 0.2  # of 1.56, where the pairs had 0


@pytest.mark.slow
def test_a_bridge_between_mixtures_reaches_the_weights():
    sigma, n = 0.8, 3000
    exact = MixtureInterpolant(DATA, SOURCE, interpolants.interpolant(sigma / np.sqrt(2)))
    times = jnp.linspace(1.0, 0.0, 101)
    run = jax.jit(lambda key, x: samplers.denoise(bridges.bridge(sigma), exact.end(), key, x, times))
    x = np.asarray(run(KEY, drawn_of(SOURCE, np.random.default_rng(1), n)))[:, 0]
    left = x < -0.4
    assert abs(left.mean() - 0.3) < 5 * np.sqrt(0.21 / n)
    for part, mean, std in ((x[left], -2.0, 0.4), (x[~left], 1.5, 0.6)):
        assert abs(part.mean() - mean) < 5 * std / np.sqrt(len(part)) + 0.01
        assert part.std() == pytest.approx(std, rel=5 / np.sqrt(2 * len(part)) + 0.03)


def test_bridge_matching_is_least_at_the_mean_end():
    """Var(x_0 | x_t) of independent N(0, s²) and N(0, 1); another slope costs its squared difference times E[x_t²]."""
    s, sigma, n, t = 2.0, 1.0, 20_000, 0.4
    x0, x1 = s * jax.random.normal(jax.random.key(1), (n, 1)), jax.random.normal(jax.random.key(2), (n, 1))
    var = (1 - t) ** 2 * s**2 + t**2 + sigma**2 * t * (1 - t)
    best = (1 - t) * s**2 / var

    @jax.jit
    def losses(slope):
        return bridges.bridge_matching(predictions.x0(lambda x, t: slope * x), KEY, x0, x1, jnp.full(n, t), sigma)

    value, worse = np.float64(losses(best)), np.float64(losses(best + 0.2))
    assert abs(value.mean() - (s**2 - best**2 * var)) < 5 * value.std() / np.sqrt(n)
    assert abs((worse - value).mean() - 0.04 * var) < 5 * (worse - value).std() / np.sqrt(n)
    drift = bridges.drift(predictions.x0(lambda x, t: 3.0 * x), jnp.ones((1, 1)), 0.5)
    np.testing.assert_allclose(drift, [[4.0]])


def test_bad_input():
    with pytest.raises(InputError, match="scale=-1"):
        interpolants.interpolant(-1.0)
    between, still = interpolants.interpolant(1.0), interpolants.interpolant()
    x, t = jnp.zeros((3, 2)), jnp.full(3, 0.5)
    velocity, noise, x0 = (make(lambda x, t: x) for make in (predictions.velocity, predictions.eps, predictions.x0))
    with pytest.raises(InputError, match=r"one shape, not \(3, 2\) and \(3, 1\)"):
        interpolants.velocity_loss(between, velocity, KEY, x, x[:, :1], t)
    with pytest.raises(InputError, match="kind 'velocity' here, not 'eps'"):
        interpolants.velocity_loss(between, noise, KEY, x, x, t)
    with pytest.raises(InputError, match="kind 'eps' here, not 'velocity'"):
        interpolants.noise_loss(between, velocity, KEY, x, x, t)
    for call in (
        lambda: interpolants.noise_loss(still, noise, KEY, x, x, t),
        lambda: interpolants.stochastic(still, noise, lambda t: t),
    ):
        with pytest.raises(InputError, match="needs an interpolant with noise"):
            call()
    with pytest.raises(InputError, match="kind 'x0' here, not 'velocity'"):
        bridges.bridge_matching(velocity, KEY, x, x, t, 1.0)
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="sigma="):
            bridges.bridge(sigma)
        with pytest.raises(InputError, match="sigma="):
            bridges.bridge_matching(x0, KEY, x, x, t, sigma)
