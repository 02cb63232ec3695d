"""Likelihoods of decoders against scipy, and their probabilities' sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffjax.errors import InputError
from diffjax.zoo.latent import likelihoods

KEY = jax.random.key(0)


def test_bits():
    likelihood = likelihoods.make("bernoulli", (3,), 2)
    x, out = np.uint8([[0, 1, 1]]), np.float32([0.3, -2.0, 30.0])
    prepared = likelihood.prepare(KEY, {"image": x})
    wanted = stats.bernoulli.logpmf(x[0], 1 / (1 + np.exp(-out.astype(float)))).sum()
    np.testing.assert_allclose(likelihood.log_prob((), out, prepared), [wanted], rtol=1e-6)
    np.testing.assert_allclose(likelihood.image((), out), 2 / (1 + np.exp(-out.astype(float))) - 1, rtol=1e-5)


def test_levels_have_probabilities_that_sum_to_one():
    likelihood = likelihoods.make("discretized_logistic", (1,), 5)
    x = likelihood.prepare(KEY, np.arange(5, dtype=np.uint8)[:, None])
    np.testing.assert_allclose(x[:, 0], np.linspace(-1, 1, 5), atol=1e-6)
    log_p = likelihood.log_prob((), jnp.array([0.2, np.log(0.3)]), x)
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    np.testing.assert_allclose(np.exp(log_p), np.diff(stats.logistic.cdf(edges, 0.2, 0.3)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "isotropic_gaussian"])
def test_densities_of_dequantised_levels_average_to_probabilities(name):
    """With the offset inside, E_u exp(log p) is the Normal's mass in a bin, so that E log p is below its logarithm."""
    likelihood = likelihoods.make(name, (1,), 5)
    mean, log_variance, num = 0.2, np.log(0.1), 50_000
    isotropic = name == "isotropic_gaussian"
    params, out = (log_variance, jnp.array([mean])) if isotropic else ((), jnp.array([mean, log_variance]))
    for level in range(5):
        x = likelihood.prepare(jax.random.key(level), np.full((num, 1), level, np.uint8))
        centre = level / 2 - 1
        assert centre - 0.25 <= x.min() < x.max() <= centre + 0.25
        p = np.exp(np.asarray(likelihood.log_prob(params, out, x), float))
        wanted = np.diff(stats.norm.cdf([centre - 0.25, centre + 0.25], mean, 0.1**0.5))[0]
        assert abs(p.mean() - wanted) < 5 * p.std() / num**0.5
    np.testing.assert_allclose(likelihood.image(params, out), [mean])


def test_real_numbers_stay_as_they_are():
    likelihood = likelihoods.make("gaussian", (2,), 0)
    x = np.float32([[0.3, -4.0]])
    out = jnp.array([0.0, -3.0, np.log(2.0), 0.0])
    wanted = stats.norm.logpdf(0.3, 0, 2**0.5) + stats.norm.logpdf(-4, -3, 1)
    np.testing.assert_allclose(likelihood.log_prob((), out, likelihood.prepare(KEY, x)), [wanted], rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"net\.likelihood must be one of"):
        likelihoods.make("poisson", (3,), 2)
    with pytest.raises(InputError, match=r"set data.levels=2 and data.binarized=True"):
        likelihoods.make("bernoulli", (3,), 256)
    with pytest.raises(InputError, match=r"'discretized_logistic' is for levels, not data.levels=0"):
        likelihoods.make("discretized_logistic", (3,), 0)
