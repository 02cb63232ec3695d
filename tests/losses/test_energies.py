"""Losses of energy models against enumeration, closed forms of Gaussians, and the score of what noise contrasts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.losses.energies import (
    contrastive_divergence,
    langevin_chain,
    minimum_probability_flow,
    noise_contrastive,
)

KEY = jax.random.key(0)
BITS = np.array(list(itertools.product((0, 1), repeat=3)), float)
COUPLINGS = np.array([0.7, -0.4, 1.1, -0.3, 0.5, 0.2])  # of the three pairs, then of the three bits


def ising(theta, x):
    pairs = jnp.stack([x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[:, 1] * x[:, 2]], 1)
    return -jnp.einsum("nk,k->n", jnp.concatenate([pairs, x], 1), theta)


def probabilities(theta):
    weight = np.exp(-np.asarray(ising(theta, BITS)))
    return weight / weight.sum()


def test_minimum_probability_flow_is_stationary_at_the_truth_and_finds_it():
    """Against a loop over neighbours, and from other couplings by the expectation over all eight arrays."""
    truth = probabilities(COUPLINGS)
    energy = np.asarray(ising(COUPLINGS, BITS))
    want = [sum(np.exp(0.5 * (energy[i] - energy[i ^ (1 << bit)])) for bit in range(3)) for i in range(8)]
    np.testing.assert_allclose(
        minimum_probability_flow(lambda x: ising(COUPLINGS, x), jnp.asarray(BITS)), want, rtol=1e-5
    )

    @jax.jit
    @jax.value_and_grad
    def flow(theta):
        return jnp.asarray(truth) @ minimum_probability_flow(lambda x: ising(theta, x), jnp.asarray(BITS))

    np.testing.assert_allclose(flow(jnp.asarray(COUPLINGS))[1], 0.0, atol=1e-6)
    found = scipy.optimize.minimize(lambda th: [np.float64(v) for v in flow(jnp.asarray(th))], np.zeros(6), jac=True)
    np.testing.assert_allclose(found.x, COUPLINGS, atol=0.01)  # the slope has float32


def test_noise_contrast_is_consistent_and_finds_the_normaliser():
    """Of N(0, s²) with log p̃ = -x²/(2 v) + c: by quadrature the slope is 0 at v = s², c = -½ log 2πs²."""
    s, scale, ratio = 0.7, 1.3, 3
    x = np.linspace(-9, 9, 4001)
    dx = x[1] - x[0]
    p, q = scipy.stats.norm.pdf(x, 0, s) * dx, scipy.stats.norm.pdf(x, 0, scale) * dx
    noise = Normal(jnp.zeros(1), jnp.full(1, scale**2))

    def log_density(theta, x):
        return -0.5 * x[:, 0] ** 2 / theta[0] + theta[1]

    def expected(theta):
        g = log_density(theta, jnp.asarray(x)[:, None]) - jax.scipy.stats.norm.logpdf(x, 0, scale) - np.log(ratio)
        return p @ jax.nn.softplus(-g) + ratio * (q @ jax.nn.softplus(g))

    truth = jnp.array([s**2, -0.5 * np.log(2 * np.pi * s**2)])
    np.testing.assert_allclose(jax.grad(expected)(truth), 0.0, atol=2e-5)
    n = 20_000
    data = s * jax.random.normal(jax.random.key(1), (n, 1))
    other = jnp.array([0.8, 0.3])
    for theta in (truth, other):  # the loss is an unbiased estimate of the integral
        losses = np.float64(noise_contrastive(lambda x, th=theta: log_density(th, x), noise, KEY, data, ratio))
        assert abs(losses.mean() - expected(theta)) < 5 * losses.std() / np.sqrt(n)
    assert expected(other) > expected(truth)
    with pytest.raises(InputError, match="at least 1, not 0"):
        noise_contrastive(lambda x: x[:, 0], noise, KEY, data, 0)


def test_contrastive_divergence_of_a_gaussian_loses_its_bias_with_the_steps():
    """E = ½ a x², data N(0, v). After k steps of size h, Var y follows in closed form; E[dL/da] = ½ (v - Var y)."""
    v, a, h, n = 0.5, 1.0, 0.1, 40_000
    data = np.sqrt(v) * jax.random.normal(jax.random.key(2), (n, 1))
    limit = 1 / (a * (1 - a * h / 2))  # the stationary variance of the unadjusted chain

    @jax.jit
    def slopes(key):
        def loss(a, k):
            y = langevin_chain(lambda x: 0.5 * a * x[:, 0] ** 2, key, data, h, k)
            return contrastive_divergence(lambda x: 0.5 * a * x[:, 0] ** 2, data, y)

        return [jax.jvp(lambda a, k=k: loss(a, k), (a,), (1.0,))[1] for k in (1, 4, 40)]

    for k, slope in zip((1, 4, 40), np.float64(slopes(KEY)), strict=True):
        shrink = (1 - a * h) ** (2 * k)
        want = 0.5 * (v - (shrink * v + (1 - shrink) * limit))
        assert abs(slope.mean() - want) < 5 * slope.std() / np.sqrt(n), k
    assert abs(want - 0.5 * (v - limit)) < 1e-3  # forty steps forget the data: the slope of the log-likelihood
    with pytest.raises(InputError, match="at least 1 step, not 0"):
        langevin_chain(lambda x: x[:, 0], KEY, data, h, 0)


def test_the_weight_holds_energies_near_0():
    x, y = jnp.array([[1.0], [2.0]]), jnp.array([[0.5], [3.0]])
    found = contrastive_divergence(lambda x: 3.0 * x[:, 0], x, y, 0.1)
    np.testing.assert_allclose(found, [3 - 1.5 + 0.1 * (9 + 2.25), 6 - 9 + 0.1 * (36 + 81)], rtol=1e-6)
