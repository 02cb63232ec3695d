"""The fitted proposal: the target's own moments, and normalising constants that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import mcmc
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.reference import GaussianMixture

DIM = 3
MEAN = jnp.array([1.0, -2.0, 0.5])
COV = jnp.array([[1.0, 0.8, 0.0], [0.8, 2.0, -0.3], [0.0, -0.3, 0.1]])
START = Normal(jnp.zeros(DIM), jnp.full(DIM, 4.0))


@pytest.mark.slow
def test_moments_of_a_correlated_gaussian():
    target = GaussianMixture(jnp.ones(1), MEAN[None], COV[None])
    fit = jax.jit(lambda key: mcmc.fit_gaussian(key, target.log_prob, START, 4, 200, 8, widening=1.5))
    means, covs = map(np.asarray, jax.vmap(fit)(jax.random.split(jax.random.key(0), 20)))
    for fits, want in ((means, MEAN), (covs, 1.5 * COV)):
        error = fits.std(0, ddof=1) / np.sqrt(20)
        assert (np.abs(fits.mean(0) - want) < 5 * error).all()
        assert (error < 0.06 * np.sqrt(np.asarray(COV).diagonal().max())).all()


@pytest.mark.slow
def test_importance_weights_have_the_normalising_constant():
    """f = 5 x a smooth mixture, which no Gaussian is: E w = 5 for any q, and a fitted one makes w vary little."""
    mixture = GaussianMixture(jnp.array([0.5, 0.5]), jnp.stack([MEAN, MEAN + 0.7]), jnp.stack([COV, 2 * COV]))

    def log_f(z):
        return mixture.log_prob(z) + jnp.log(5.0)

    @jax.jit
    def weights(key):
        fit_key, key = jax.random.split(key)
        mean, cov = mcmc.fit_gaussian(fit_key, log_f, START, 4, 200)
        proposal = GaussianMixture(jnp.ones(1), mean[None], cov[None])
        z = proposal.sample(key, 4000)
        return jnp.exp(jax.vmap(log_f)(z) - proposal.log_prob(z))

    w = np.asarray(weights(jax.random.key(1)), np.float64)
    # Half the draws being effective, w varies by at most 5: a standard error of 5/√4000 = 0.08.
    assert w.sum() ** 2 / (w**2).sum() > 0.5 * w.size
    assert abs(w.mean() - 5.0) < 5 * w.std(ddof=1) / np.sqrt(w.size) < 0.4


def test_bad_input():
    with pytest.raises(InputError, match="num_chains"):
        mcmc.fit_gaussian(jax.random.key(0), START.log_prob, START, 0)
