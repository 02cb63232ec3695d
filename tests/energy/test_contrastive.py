"""Contrastive divergence against its exact expectation, by the table of the chain's transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from diffjax import energy
from diffjax.errors import InputError
from tests.energy import machines
from tests.energy.machines import P, V

KEY = jax.random.key(4)
DATA = np.array([0.3, 0.02, 0.08, 0.1, 0.05, 0.2, 0.05, 0.2])  # probabilities of the 8 v, not the machine's
SLOPES = machines.gradient_of_free_energy()


def flat(gradient):
    parts = [np.asarray(gradient[name], float) for name in ("weights", "visible", "hidden")]
    return np.concatenate([part.reshape(part.shape[0], -1) for part in parts], 1)


def exact(k):
    """The expected gradient of CD-k where the data have the probabilities DATA."""
    return (DATA - DATA @ np.linalg.matrix_power(machines.transition(), k)) @ SLOPES


@pytest.mark.parametrize("k", [1, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 8))])
def test_the_gradient_is_that_of_the_table_and_its_bias_vanishes(k):
    num, params = 20_000, machines.params()
    v = V[np.random.default_rng(0).choice(8, num, p=DATA)].astype(np.float32)

    def one(params, key, v):
        return energy.contrastive_divergence(params, key, v[None], k)[0]

    keys = jax.random.split(KEY, num)
    found = flat(jax.jit(jax.vmap(jax.grad(one), (None, 0, 0)))(params, keys, v))
    error = found.std(0) / num**0.5
    assert (np.abs(found.mean(0) - exact(k)) < 5 * error + 1e-6).all()
    likelihood = (DATA - P) @ SLOPES
    bias = np.abs(exact(k) - likelihood).max()
    assert bias < {1: 0.1, 2: 0.01, 8: 1e-5}[k]
    # At one step the bias is more than the error of the mean, so that a wrong k would be seen.
    assert (np.abs(found.mean(0) - likelihood) > 5 * error).any() == (k == 1)


@pytest.mark.slow
def test_persistent_chains_find_the_maximum_of_the_likelihood():
    """The likelihood's maximum by L-BFGS on the exact one; then a training by the chains, which ends near it."""
    memory, num = energy.persistent(3, 500, 2), 1500

    def step(carry, t):
        params, chains = carry

        def loss(params):
            return (DATA * energy.persistent_divergence(params, chains, V.astype(np.float32))).sum()

        rate = 1.0 * (1 - t / num)
        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))
        return (params, memory.update(chains, jax.random.fold_in(KEY, t), params, {}, None)), None

    start = jax.tree.map(jnp.asarray, machines.params())
    (params, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(num)))((start, memory.init(start)))

    def cost(theta):
        w, b, c = theta[:6].reshape(3, 2), theta[6:9], theta[9:]
        log_f = V @ b + np.logaddexp(0, c + V @ w).sum(1)
        return np.log(np.exp(log_f).sum()) - DATA @ log_f

    best = minimize(cost, np.concatenate([machines.WEIGHTS.ravel(), machines.VISIBLE, machines.HIDDEN])).fun
    before = cost(np.concatenate([machines.WEIGHTS.ravel(), machines.VISIBLE, machines.HIDDEN]))
    found = cost(np.concatenate([np.asarray(params[name]).ravel() for name in ("weights", "visible", "hidden")]))
    entropy = -(DATA * np.log(DATA)).sum()
    assert entropy <= best < found < best + 0.05 * (before - best)


def test_bad_arguments_are_named():
    params, v = machines.params(), V.astype(np.float32)
    for k in (0, 1.5, True):
        with pytest.raises(InputError, match=f"k must be an integer of at least 1, the number of Gibbs steps, not {k}"):
            energy.contrastive_divergence(params, KEY, v, k)
    with pytest.raises(InputError, match="num_chains must be an integer of at least 1, the number of chains, not 0"):
        energy.persistent(3, 0, 1)
    with pytest.raises(InputError, match="with at least one chain, not of shape"):
        energy.run_chains(params, KEY, v[:0], 1)
    with pytest.raises(InputError, match="v has values other than 0 and 1, and the visible units are bits: binarise"):
        energy.contrastive_divergence(params, KEY, 0.5 * v, 1)
    real = machines.params(real=True)
    assert np.isfinite(energy.contrastive_divergence(real, KEY, 0.5 * v, 1)).all()
