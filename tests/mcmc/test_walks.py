"""Chains that are learned: generative stochastic networks and the walk of a contractive auto-encoder."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from diffjax.errors import InputError
from diffjax.mcmc import stochastic_network, tangent_walk, walkback

KEY = jax.random.key(10)
STATES = np.array(list(itertools.product((0, 1), repeat=3)), np.float32)
DATA = np.array([0.3, 0.02, 0.08, 0.1, 0.05, 0.2, 0.05, 0.2])
FLIP = 0.25
DISTANCE = (STATES[:, None] != STATES).sum(-1)
CORRUPTED = FLIP**DISTANCE * (1 - FLIP) ** (3 - DISTANCE)  # q(x̃ | x), (x, x̃)
POSTERIOR = (DATA[:, None] * CORRUPTED / (DATA @ CORRUPTED)).T  # p(x | x̃), (x̃, x)


class Row(NamedTuple):
    """A law on the 8 states."""

    logits: jax.Array

    def sample(self, key):
        return jnp.asarray(STATES)[jax.random.categorical(key, self.logits)]

    def log_prob(self, x):
        return self.logits[number(x)]


def number(x):
    return (x @ jnp.array([4.0, 2.0, 1.0])).astype(int)


def network(key, x, h):
    """The denoising auto-encoder whose reconstruction is the exact posterior."""
    noisy = jnp.where(jax.random.bernoulli(key, FLIP, x.shape), 1 - x, x)
    return (), Row(jnp.log(jnp.asarray(POSTERIOR, jnp.float32))[number(noisy)])


@pytest.mark.slow
def test_with_the_exact_posterior_the_stationary_law_is_that_of_the_data():
    kernel, num = stochastic_network(network), 40_000

    def chain(key):
        state = kernel.init((jnp.zeros(3), ()))
        return jax.lax.fori_loop(0, 15, lambda i, s: kernel.step(jax.random.fold_in(key, i), s)[0], state).position[0]

    transition = CORRUPTED @ POSTERIOR
    np.testing.assert_allclose(DATA @ transition, DATA, rtol=1e-12)
    exact = np.linalg.matrix_power(transition, 15)[0]
    assert np.abs(exact - DATA).max() < 1e-3
    x = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(KEY, num)))
    found = (x[:, None] == STATES).all(-1).mean(0)
    assert (np.abs(found - exact) < 5 * np.sqrt(exact * (1 - exact) / num)).all()


@pytest.mark.slow
def test_walkback_asks_every_place_of_the_chain_for_the_example():
    """Its expectation: -(1/K) Σ_t (C P)^(t-1) C log p(x_0 | x̃), by the tables."""
    num_steps, num, first = 3, 10_000, 5
    cost, at = 0.0, np.eye(8)[first]
    for _ in range(num_steps):
        cost -= at @ CORRUPTED @ np.log(POSTERIOR[:, first]) / num_steps
        at = at @ CORRUPTED @ POSTERIOR
    x0 = jnp.asarray(STATES[first])
    draw = jax.jit(jax.vmap(lambda key: walkback(network, key, x0, (), num_steps)))
    losses = np.asarray(draw(jax.random.split(KEY, num)), float)
    assert abs(losses.mean() - cost) < 5 * losses.std() / num**0.5
    one = -CORRUPTED[first] @ np.log(POSTERIOR[:, first])
    assert abs(losses.mean() - one) > 20 * losses.std() / num**0.5
    with pytest.raises(InputError, match="num_steps"):
        walkback(network, KEY, x0, (), 0)


def test_the_walk_of_a_linear_auto_encoder_is_an_autoregression_of_known_covariance():
    """x' = V (W x + W Wᵀ ε): A = V W, and the covariance solves C = A C Aᵀ + σ² V (W Wᵀ)² Vᵀ."""
    rng = np.random.default_rng(0)
    w, v, sigma = 0.4 * rng.normal(size=(2, 3)), 0.4 * rng.normal(size=(3, 2)), 1.3
    assert np.abs(np.linalg.eigvals(v @ w)).max() < 0.7
    spread = v @ w @ w.T
    exact = solve_discrete_lyapunov(v @ w, sigma**2 * spread @ spread.T)
    encoder, decoder, num = jnp.asarray(w, jnp.float32), jnp.asarray(v, jnp.float32), 20_000
    kernel = tangent_walk(lambda x: encoder @ x, lambda h: decoder @ h, sigma)

    def chain(key):
        state = kernel.init(jnp.zeros(3))
        return jax.lax.fori_loop(0, 40, lambda i, s: kernel.step(jax.random.fold_in(key, i), s)[0], state).position

    x = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(KEY, num)), float)
    assert (np.abs(x.mean(0)) < 5 * np.sqrt(np.diag(exact) / num)).all()
    # Of Gaussians the product x_i x_j has the variance c_ii c_jj + c_ij².
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / num)
    assert (np.abs(x.T @ x / num - exact) < 5 * error).all()
