"""Annealed importance sampling between Gaussians, whose path is Gaussian and whose constants are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.distributions import LOG_2PI, Normal
from diffjax.errors import InputError
from diffjax.mcmc import Kernel, ais, hmc

KEY = jax.random.key(5)
NUM = 20_000
LOG_Z = 3.0
START = Normal(jnp.array([0.5, -1.0, 0.0]), jnp.array([1.0, 2.0, 0.7]))
TARGET = Normal(jnp.array([1.2, 0.3, -0.5]), jnp.array([0.4, 0.5, 0.9]))


def log_target(z):
    return LOG_Z + TARGET.log_prob(z).sum()


class Exact(NamedTuple):
    position: jax.Array


def path(beta):
    """f_β of START and TARGET is a product of Normals: precisions and precision-weighted means interpolate."""
    precision = (1 - beta) / START.variance + beta / TARGET.variance
    mean = ((1 - beta) * START.mean / START.variance + beta * TARGET.mean / TARGET.variance) / precision
    return mean, 1 / precision


def exact_kernel(log_density, beta):
    """Draws from f_β whatever came before."""
    return Kernel(Exact, lambda key, state: (Exact(Normal(*path(beta)).sample(key)), beta))


def many(start, target, betas, kernel, num=NUM):
    return jax.jit(jax.vmap(lambda key: ais(key, start, target, betas, kernel)))(jax.random.split(KEY, num))


@pytest.mark.parametrize("betas", [[0.0, 1.0], np.linspace(0, 1, 8) ** 2])
def test_with_exact_draws_at_every_temperature_the_law_of_log_w_is_known(betas):
    """log w is a sum of independent (β_{k+1} - β_k) u(z_k), z_k ~ f_{β_k}, with u = log f_1 - log p_0 a quadratic
    c + Σ b y + ½ h y² in y = z - E[z]: E[u] = c + ½ Σ h v, Var[u] = Σ b² v + ½ h² v²."""
    mean, variance = LOG_Z, 0.0
    for beta, gap in zip(betas[:-1], np.diff(betas), strict=True):
        m, v = (np.asarray(x, np.float64) for x in path(beta))
        (m0, v0), (m1, v1) = (np.asarray(p, np.float64) for p in (START, TARGET))
        c = (0.5 * ((m - m0) ** 2 / v0 + np.log(v0)) - 0.5 * ((m - m1) ** 2 / v1 + np.log(v1))).sum()
        b, h = (m - m0) / v0 - (m - m1) / v1, 1 / v0 - 1 / v1
        mean += gap * (c + 0.5 * h @ v)
        variance += gap**2 * (b**2 @ v + 0.5 * h**2 @ v**2)
    draws = many(START, log_target, betas, exact_kernel)
    assert abs(draws.log_weight.mean() - mean) < 5 * (variance / NUM) ** 0.5
    # No standard error of the variance without fourth moments: the sample's own serve.
    squares = (draws.log_weight - mean) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / NUM**0.5
    assert mean < LOG_Z  # Jensen
    np.testing.assert_allclose(draws.infos, np.broadcast_to(betas[1:-1], draws.infos.shape), rtol=1e-6)


class Correlated(NamedTuple):
    """A start that is no elementwise Distribution: N(mean, L Lᵀ)."""

    mean: jax.Array
    root: jax.Array

    def sample(self, key):
        return self.mean + self.root @ jax.random.normal(key, self.mean.shape)

    def log_prob(self, x):
        white = jax.scipy.linalg.solve_triangular(self.root, x - self.mean, lower=True)
        return -0.5 * (white @ white) - jnp.log(jnp.diag(self.root)).sum() - 0.5 * x.size * LOG_2PI


ROOT = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.9, 0.0], [-0.3, 0.2, 1.2]])


def standard_errors_off(metropolis):
    """Of E[w] from Z, every chain from a start of its own, and of the weighted mean from that of the target."""
    means = 0.3 * jax.random.normal(jax.random.key(1), (NUM, 3))

    def one(key, mean):
        def kernel(log_density, beta):
            return hmc(log_density, 1.2 / (1 + beta), 2, metropolis=metropolis)

        return ais(key, Correlated(mean, ROOT), log_target, [0.0, 0.2, 0.5, 1.0], kernel)

    draws = jax.jit(jax.vmap(one))(jax.random.split(KEY, NUM), means)
    w = jnp.exp(draws.log_weight - LOG_Z)
    moved = w[:, None] * (draws.position - TARGET.mean)
    assert w.std() < 2  # few temperatures, yet weights that can be averaged
    errors = jnp.concatenate([(w - 1)[:, None], moved], axis=1)
    return jnp.abs(errors.mean(0)) / (errors.std(0) / NUM**0.5)


@pytest.mark.slow
def test_weights_are_unbiased_with_few_temperatures_and_short_chains():
    assert standard_errors_off(metropolis=True).max() < 5


@pytest.mark.slow
def test_a_kernel_without_metropolis_is_found_out():
    assert standard_errors_off(metropolis=False)[0] > 7


def test_no_variance_from_the_target_to_itself():
    draws = many(TARGET, log_target, jnp.linspace(0, 1, 6), lambda log_density, beta: hmc(log_density, 0.3, 2), num=100)
    np.testing.assert_allclose(draws.log_weight, LOG_Z, atol=1e-5)


def test_bad_input_is_named():
    for betas in ([0.1, 1.0], [0.0, 0.9], [1.0, 0.0], [0.0, 0.5, 0.5, 1.0], jnp.linspace(1, 0, 5), [0.0, np.nan, 1.0]):
        with pytest.raises(InputError, match="betas must increase strictly from 0 to 1"):
            ais(KEY, START, log_target, betas, exact_kernel)
    for betas in ([0.0], 1.0, jnp.zeros((2, 2))):
        with pytest.raises(InputError, match="betas must be a vector of at least 2 numbers"):
            ais(KEY, START, log_target, betas, exact_kernel)
    with pytest.raises(InputError, match=r"log_density must give a scalar, not an array of shape \(3,\)"):
        ais(KEY, START, TARGET.log_prob, [0.0, 1.0], exact_kernel)
