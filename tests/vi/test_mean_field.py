"""Black-box variational inference against the best factorised Gaussian of a Gaussian, which is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from diffjax import vi
from diffjax.distributions import Gamma, Normal
from diffjax.errors import InputError

# N(mean, cov): of the factorised Gaussians N(mean, 1/precision_ii) is the nearest, by ½ (Σ log precision_ii - log|.|).
MEAN = np.array([1.0, -2.0, 0.5])
COV = np.array([[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.5]])
PRECISION = np.linalg.inv(COV)
GAP = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])
LOG_Z = 3.0


def log_joint(z):
    x = jnp.concatenate([z["pair"], z["one"][None]]) - MEAN
    return LOG_Z - 0.5 * x @ jnp.asarray(PRECISION, jnp.float32) @ x - 0.5 * np.linalg.slogdet(2 * np.pi * COV)[1]


POSITION = {"pair": np.zeros(2), "one": 0.0}


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    ("estimator", "own", "error"),
    [
        ("score", vi.sampled_entropy, 0.02),
        ("score_leave_one_out", vi.sampled_entropy, 0.02),
        ("reparameterized", vi.analytic_entropy, 0.005),
        ("sticking_the_landing", vi.sampled_entropy, 0.005),
    ],
)
def test_reaches_the_best_factorised_gaussian(estimator, own, error):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 600))

    @jax.jit
    def train(key):
        start = vi.mean_field.start(POSITION, 0.5)
        return vi.mean_field.fit(key, log_joint, vi.mean_field.normal, start, optimizer, 600, 16, estimator, own)

    (mean, log_std), elbo = train(jax.random.key(0))
    assert elbo.shape == (600,)
    m, u = (np.append(part["pair"], part["one"]) for part in (mean, log_std))
    ratio = np.diag(PRECISION) * np.exp(2 * u)  # of the variances to the best ones
    lost = 0.5 * (m - MEAN) @ PRECISION @ (m - MEAN) + 0.5 * (ratio - 1 - np.log(ratio)).sum()
    assert 0 <= lost < error
    # The draws of different steps are independent: their mean estimates a bound that hardly moves any more.
    late = np.asarray(elbo[-100:], np.float64)
    assert abs(late.mean() - (LOG_Z - GAP - lost)) < 5 * late.std() / 10 + 0.2 * error
    assert GAP > 0.3
    assert elbo[:5].mean() < LOG_Z - GAP - 1


@pytest.mark.slow
def test_a_factorised_law_is_the_sum_of_its_parts():
    p = vi.Factorised(
        (Normal(jnp.zeros(2), jnp.array([1.0, 4.0])), {"rate": Gamma(jnp.float32(2.0), jnp.float32(3.0))})
    )
    q = vi.Factorised((Normal(jnp.ones(2), jnp.float32(2.0)), {"rate": Gamma(jnp.float32(1.0), jnp.float32(2.0))}))
    z = (jnp.array([0.3, -1.0]), {"rate": jnp.float32(0.4)})
    a, b = scipy.stats.norm(0, [1, 2]), scipy.stats.gamma(2, scale=1 / 3)
    np.testing.assert_allclose(p.log_prob(z), a.logpdf(z[0]).sum() + b.logpdf(0.4), rtol=1e-6)
    np.testing.assert_allclose(p.entropy(), a.entropy().sum() + b.entropy(), rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.jit(jax.vmap(p.sample))(keys)
    ratio = np.asarray(jax.jit(jax.vmap(lambda z: p.log_prob(z) - q.log_prob(z)))(draws))
    assert abs(ratio.mean() - p.kl(q)) < 5 * ratio.std() / 4000**0.5
    first, second = draws[0], draws[1]["rate"]
    assert scipy.stats.kstest(second, b.cdf).pvalue > 1e-6
    together = np.corrcoef(np.column_stack([first, second]).T) - np.eye(3)
    assert np.abs(together).max() < 5 / 4000**0.5, "entries must be independent"


@pytest.mark.parametrize(("change", "match"), [({"num_steps": 0}, "num_steps"), ({"num": 0}, "num must")])
def test_what_cannot_be_is_refused(change, match):
    fit = functools.partial(vi.mean_field.fit, jax.random.key(0), log_joint, vi.mean_field.normal)
    with pytest.raises(InputError, match=match):
        fit(vi.mean_field.start(POSITION), optax.sgd(0.1), **({"num_steps": 2} | change))
    with pytest.raises(InputError, match="std must be positive"):
        vi.mean_field.start(POSITION, 0.0)
