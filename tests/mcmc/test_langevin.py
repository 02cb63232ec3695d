import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stationarity import LIMIT, MIXTURE, NUM_DRAWS, log_density, score, z_scores

from diffjax.errors import InputError
from diffjax.mcmc import langevin, run

KEY = jax.random.key(7)
DENSE = MIXTURE.cov


@pytest.mark.fast(1)
@pytest.mark.parametrize("inverse_mass", [1.0, jnp.array([2.0, 0.5]), DENSE], ids=["scalar", "diagonal", "dense"])
def test_a_step_has_mean_h_score_and_covariance_2h(inverse_mass):
    """x' ~ N(x + h M⁻¹ s, 2h M⁻¹). Standard errors: √(v/n) of a mean, √((v_i v_j + c²)/n) of a covariance."""
    h, x = 0.2, jnp.array([0.7, -1.2])
    kernel = langevin(None, h, inverse_mass=inverse_mass, score=score)
    keys = jax.random.split(KEY, NUM_DRAWS)
    draws = jax.jit(jax.vmap(lambda key: kernel.step(key, kernel.init(x))[0].position))(keys)
    preconditioner = DENSE if inverse_mass is DENSE else inverse_mass * jnp.eye(2)
    cov = 2 * h * preconditioner
    variance = jnp.diagonal(cov)
    assert (jnp.abs(draws.mean(0) - x - h * preconditioner @ score(x)) < 5 * jnp.sqrt(variance / NUM_DRAWS)).all()
    error = jnp.sqrt((jnp.outer(variance, variance) + cov**2) / NUM_DRAWS)
    assert (jnp.abs(jnp.cov(draws.T) - cov) < 5 * error).all()


def test_the_bias_of_the_unadjusted_chain_is_the_known_one():
    """On N(0, s²) the variance becomes s²/(1 - h/(2s²)); the standard error of a variance is v √(2/n)."""
    s, h = 0.7, 0.3
    kernel = langevin(lambda x: -0.5 * x**2 / s**2, h)
    start = s * jax.random.normal(jax.random.key(1), (NUM_DRAWS,))
    chains = jax.vmap(lambda key, x: run(kernel, key, x, 25)[0].position[-1])
    draws = jax.jit(chains)(jax.random.split(KEY, NUM_DRAWS), start)
    expected = s**2 / (1 - h / (2 * s**2))
    assert abs(draws.var() - expected) < 5 * expected * (2 / NUM_DRAWS) ** 0.5 < 0.2 * (expected - s**2)


@pytest.mark.fast(1)
@pytest.mark.parametrize("inverse_mass", [1.0, DENSE], ids=["scalar", "dense"])
def test_metropolis_keeps_exact_draws_exact_and_nothing_else_does(inverse_mass):
    exact = MIXTURE.sample(jax.random.key(0), NUM_DRAWS)
    adjusted = langevin(log_density, 0.4, metropolis=True, inverse_mass=inverse_mass)
    assert jnp.abs(z_scores(adjusted, KEY, exact)).max() < LIMIT
    unadjusted = langevin(log_density, 0.4, inverse_mass=inverse_mass)
    assert jnp.abs(z_scores(unadjusted, KEY, exact)).max() > 2 * LIMIT


@pytest.mark.slow
def test_mala_proposes_and_accepts_as_that_of_blackjax():
    """Which computes the ratio from two Gaussian proposal densities, not from an energy."""
    kernel, other = langevin(log_density, 0.4, metropolis=True), blackjax.mala(log_density, 0.4)
    exact, keys = MIXTURE.sample(jax.random.key(0), 500), jax.random.split(KEY, 500)
    states, infos = jax.jit(jax.vmap(lambda key, x: kernel.step(key, kernel.init(x))))(keys, exact)
    expected, expected_infos = jax.jit(jax.vmap(lambda key, x: other.step(key, other.init(x))))(keys, exact)
    np.testing.assert_allclose(infos.acceptance_probability, expected_infos.acceptance_rate, atol=1e-4)
    same = infos.accepted == expected_infos.is_accepted
    assert same.mean() > 0.99 and 0.5 < infos.accepted.mean() < 0.95
    np.testing.assert_allclose(states.position[same], expected.position[same], atol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="step_size must be positive and finite, not"):
        langevin(log_density, -0.1)
    with pytest.raises(InputError, match="metropolis=True needs a log_density"):
        langevin(None, 0.1, metropolis=True, score=score)
