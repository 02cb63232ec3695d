"""Gibbs and over-relaxation on laws whose exact draws, linear maps and spectra are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stationarity import LIMIT, NUM_DRAWS, z_scores

from diffjax.distributions import Bernoulli, Normal
from diffjax.errors import InputError
from diffjax.mcmc import gibbs, over_relaxed, over_relaxed_gibbs, run

KEY = jax.random.key(3)
MEAN = jnp.array([1.0, -0.5, 0.3])
PRECISION = jnp.array([[2.0, -1.2, 0.4], [-1.2, 1.5, 0.3], [0.4, 0.3, 1.0]])


def conditional(i, z, precision=PRECISION, mean=MEAN):
    """μ_i and σ_i² of N(mean, precision⁻¹)."""
    slope = precision[i] @ (z - mean) - precision[i, i] * (z[i] - mean[i])
    return mean[i] - slope / precision[i, i], 1.0 / precision[i, i]


def normal_conditional(i, z):
    return Normal(*conditional(i, z))


def exact_draws(num):
    root = np.linalg.cholesky(np.linalg.inv(np.asarray(PRECISION, np.float64)))
    return MEAN + jax.random.normal(jax.random.key(0), (num, 3)) @ jnp.asarray(root.T, jnp.float32)


SCANS = ("systematic", "random")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel", [over_relaxed_gibbs(conditional, -0.76), gibbs(normal_conditional, "random")], ids=["relaxed", "gibbs"]
)
def test_exact_gaussian_draws_stay_exact(kernel):
    assert jnp.abs(z_scores(kernel, KEY, exact_draws(NUM_DRAWS))).max() < LIMIT


def test_a_relaxation_with_another_variance_is_found_out():
    def careless(i, z):
        mean, variance = conditional(i, z)
        return Normal(mean - 0.76 * (z[i] - mean), variance * (1 - 0.76))

    assert jnp.abs(z_scores(gibbs(careless), KEY, exact_draws(NUM_DRAWS))).max() > 2 * LIMIT


# A Boltzmann machine on {0, 1}³, enumerated -------------------------------------------------------------------------

COUPLING = np.array([[0.0, 1.5, -0.7], [1.5, 0.0, 0.9], [-0.7, 0.9, 0.0]])
FIELD = np.array([-0.4, 0.2, 0.5])
STATES = np.array(list(itertools.product([0, 1], repeat=3)))
ENERGY = -0.5 * np.einsum("si,ij,sj->s", STATES, COUPLING, STATES) - STATES @ FIELD
PROBS = np.exp(-ENERGY) / np.exp(-ENERGY).sum()


@pytest.mark.fast(1)
@pytest.mark.parametrize("scan", SCANS)
def test_exact_bits_stay_exact(scan):
    """P(s) before and after a step differ by 0, in standard errors of the paired differences, in all 8 states."""
    coupling, field = jnp.asarray(COUPLING), jnp.asarray(FIELD)
    index = jax.random.choice(jax.random.key(1), 8, (NUM_DRAWS,), p=jnp.asarray(PROBS))

    def worst(conditional):
        kernel = gibbs(conditional, scan)
        step = jax.jit(jax.vmap(lambda key, z: kernel.step(key, kernel.init(z))[0].position))
        after = step(jax.random.split(KEY, NUM_DRAWS), jnp.asarray(STATES)[index])  # integers, which become numbers
        assert after.dtype == jnp.float32 and bool(((after == 0) | (after == 1)).all())
        difference = jax.nn.one_hot((after @ jnp.array([4.0, 2.0, 1.0])).astype(int), 8) - jax.nn.one_hot(index, 8)
        return jnp.abs(difference.mean(0) / difference.std(0) * NUM_DRAWS**0.5).max()

    assert worst(lambda i, z: Bernoulli(coupling[i] @ z + field[i])) < LIMIT
    if scan == "systematic":  # a pair is no half pair
        assert worst(lambda i, z: Bernoulli(0.5 * coupling[i] @ z + field[i])) > 2 * LIMIT


# One step as a linear map -------------------------------------------------------------------------------------------


def linear_map(kernel, size):
    """∂z'/∂z with the random numbers held fixed, which is E[z' | z]'s."""
    return np.asarray(jax.jit(jax.jacfwd(lambda z: kernel.step(KEY, kernel.init(z))[0].position))(jnp.ones(size)))


@pytest.mark.parametrize("a", [-0.76, 0.0, 0.4])
def test_a_sweep_is_the_product_of_its_relaxations(a):
    """M = Π_i [1 - (1 - a) e_i Λ_i/Λ_ii]; with exact draws staying exact, this is all of a Gaussian kernel."""
    expected = np.eye(3)
    for i in range(3):
        one = np.eye(3)
        one[i] -= (1 - a) * np.asarray(PRECISION)[i] / PRECISION[i, i]
        expected = one @ expected
    np.testing.assert_allclose(linear_map(over_relaxed_gibbs(conditional, a), 3), expected, atol=1e-6)


@pytest.mark.parametrize("a", [-0.76, -0.3, 0.0, 0.5])
def test_autocorrelation_as_in_successive_over_relaxation(a):
    """The eigenvalues λ of M, the chain's autocorrelations, obey (λ - a)² = λ (1 - a)² ρ² for two coordinates of
    correlation ρ (Young 1954, ω = 1 - a): ρ² and 0 for Gibbs."""
    sigma_1, sigma_2 = 1.0, 10.0  # exp[-(z1 - z2)²/2σ1² - (z1 + z2)²/2σ2²]
    same, other = 1 / sigma_1**2 + 1 / sigma_2**2, 1 / sigma_2**2 - 1 / sigma_1**2
    precision = jnp.array([[same, other], [other, same]])
    kernel = over_relaxed_gibbs(lambda i, z: conditional(i, z, precision, jnp.zeros(2)), a)
    b = 2 * a + (1 - a) ** 2 * (other / same) ** 2
    expected = np.roots([1.0, -b, a**2])
    values = np.linalg.eigvals(linear_map(kernel, 2).astype(np.float64))
    np.testing.assert_allclose(np.sort_complex(values), np.sort_complex(expected), atol=1e-5)


def test_without_relaxation_it_is_gibbs():
    plain, _ = run(gibbs(normal_conditional), KEY, jnp.zeros(3), 5)
    relaxed, _ = run(over_relaxed_gibbs(conditional, 0.0), KEY, jnp.zeros(3), 5)
    np.testing.assert_array_equal(relaxed.position, plain.position)


def test_a_random_scan_draws_the_sites_it_names_and_no_others():
    start, num = jnp.zeros(4), 4000
    kernel = gibbs(lambda i, z: Normal(i + 1.0, 0.01), "random")
    step = jax.jit(jax.vmap(lambda key: kernel.step(key, kernel.init(start))))
    states, infos = step(jax.random.split(KEY, num))
    named = (infos.sites[:, :, None] == jnp.arange(4)).any(1)
    np.testing.assert_array_equal(states.position != 0, named)
    # A site is drawn at least once with probability 1 - (3/4)⁴.
    p = 1 - 0.75**4
    assert (jnp.abs(named.mean(0) - p) < 5 * (p * (1 - p) / num) ** 0.5).all()


@pytest.mark.slow
def test_gradients_in_a_and_in_the_conditional_against_differences():
    with jax.enable_x64(True):
        precision, mean = jnp.asarray(PRECISION, float), jnp.asarray(MEAN, float)

        @jax.jit
        def loss(theta):
            a, coupling = theta
            changed = precision.at[0, 1].add(coupling).at[1, 0].add(coupling)
            kernel = over_relaxed_gibbs(lambda i, z: conditional(i, z, changed, mean), a, "random")
            states, _ = run(kernel, KEY, jnp.array([0.3, -1.0, 2.0]), 4)
            return jnp.sum(jnp.sin(states.position))

        theta, h = jnp.array([-0.76, 0.1]), 1e-5
        differences = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in jnp.eye(2)]
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(theta), differences, rtol=1e-7)


def test_bad_input_is_named():
    for a in (1.0, -1.0, 1.5, np.nan, jnp.zeros(3)):
        with pytest.raises(InputError, match="a must be a number between -1 and 1"):
            over_relaxed_gibbs(conditional, a)
    with pytest.raises(InputError, match="a must be a number between -1 and 1"):
        over_relaxed(Normal(jnp.zeros(3), jnp.ones(3)), jnp.zeros(3), -1.0)
    with pytest.raises(InputError, match="scan must be one of systematic, random, not 'checkerboard'"):
        gibbs(normal_conditional, "checkerboard")
    for position in (jnp.zeros((2, 3)), 0.0, jnp.zeros(0)):
        with pytest.raises(InputError, match=r"position must be a vector \(D,\)"):
            gibbs(normal_conditional).init(position)
    with pytest.raises(InputError, match=r"conditional must give a scalar, not one of shape \(3,\)"):
        run(gibbs(lambda i, z: Normal(z, jnp.ones(3))), KEY, jnp.zeros(3), 1)
