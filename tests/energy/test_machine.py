"""Restricted Boltzmann machines against all their states, one by one, and against quadrature where units are real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import energy
from diffjax.errors import InputError
from tests.energy import machines
from tests.energy.machines import JOINT, LOG_Z, H, P, V

KEY = jax.random.key(3)


def test_log_z_and_every_probability_are_those_of_the_table():
    params = machines.params()
    log_z = energy.log_partition_by_enumeration(params)
    np.testing.assert_allclose(log_z, LOG_Z, rtol=1e-6)
    np.testing.assert_allclose(-energy.free_energy(params, V.astype(np.float32)) - log_z, np.log(P), atol=3e-6)
    pairs = V[:, None].astype(np.float32), H[None].astype(np.float32)
    np.testing.assert_allclose(energy.energy(params, *pairs), machines.ENERGY, atol=1e-5)
    h = JOINT @ H / P[:, None]
    np.testing.assert_allclose(energy.hidden_given(params, V.astype(np.float32)).mean, h, atol=1e-6)
    v = JOINT.T @ V / JOINT.sum(0)[:, None]
    np.testing.assert_allclose(energy.visible_given(params, H.astype(np.float32)).mean, v, atol=1e-6)
    # The smaller layer is summed over, whichever it is.
    turned = {"weights": params["weights"].T, "visible": params["hidden"], "hidden": params["visible"]}
    np.testing.assert_allclose(energy.log_partition_by_enumeration(turned), LOG_Z, rtol=1e-6)


def test_the_gradient_of_the_likelihood_is_data_less_model():
    """∂ log p(v)/∂θ = E_p[∂F/∂θ] - ∂F/∂θ, of the table."""

    def log_p(params, v):
        return -energy.free_energy(params, v) - energy.log_partition_by_enumeration(params)

    found = jax.jit(jax.vmap(jax.grad(log_p), (None, 0)))(machines.params(), V.astype(np.float32))
    slopes = machines.gradient_of_free_energy()
    exact = P @ slopes - slopes
    flat = np.concatenate([np.asarray(found[name]).reshape(8, -1) for name in ("weights", "visible", "hidden")], 1)
    np.testing.assert_allclose(flat, exact, atol=3e-6)


def test_block_gibbs_has_the_moments_of_the_table():
    num, params = 20_000, machines.params()
    start = jnp.zeros((num, 3))
    v, means = jax.jit(lambda key: energy.run_chains(params, key, start, 30))(KEY)
    v, means = np.asarray(v, float), np.asarray(means, float)
    slowest = np.sort(np.abs(np.linalg.eigvals(machines.transition())))[-2]
    assert slowest**30 < 1e-4
    frequencies = (v[:, None] == V).all(-1).mean(0)
    assert (np.abs(frequencies - P) < 5 * np.sqrt(P * (1 - P) / num)).all()
    # The means of the law of v given h have the same expectation, and vary less.
    exact = P @ V
    assert (np.abs(means.mean(0) - exact) < 5 * means.std(0) / num**0.5).all()
    assert (means.std(0) < v.std(0)).all()


@pytest.mark.slow
def test_real_visible_units_are_a_mixture_of_gaussians():
    """Σ_h of exp(-E) on a grid of v, whose sum is log Z, and whose moments the chains have."""
    params = machines.params(real=True)
    grid = np.linspace(-12.0, 12.0, 73)
    v = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
    quadratic = ((v - machines.VISIBLE) ** 2 / (2 * machines.VARIANCE)).sum(-1)
    coupled = (v / machines.VARIANCE**0.5) @ machines.WEIGHTS
    density = np.exp(-quadratic[:, None] + coupled @ H.T + H @ machines.HIDDEN).sum(1) * (grid[1] - grid[0]) ** 3
    log_z = np.log(density.sum())
    np.testing.assert_allclose(energy.log_partition_by_enumeration(params), log_z, rtol=1e-5)
    some = np.random.default_rng(0).choice(len(v), 50, p=density / density.sum())
    here = -np.asarray(energy.free_energy(params, v[some].astype(np.float32)))
    np.testing.assert_allclose(here, np.log(density[some] / (grid[1] - grid[0]) ** 3), rtol=1e-4, atol=1e-4)
    num = 20_000
    drawn = np.asarray(jax.jit(lambda key: energy.run_chains(params, key, jnp.zeros((num, 3)), 40)[0])(KEY), float)
    p = density / density.sum()
    mean, square = p @ v, p @ v**2
    for moment, exact in ((drawn, mean), (drawn**2, square)):
        assert (np.abs(moment.mean(0) - exact) < 5 * moment.std(0) / num**0.5).all()


def test_bad_arguments_are_named():
    params = machines.params()
    with pytest.raises(InputError, match=r"v must be of shape \(..., 3\), one number for each visible unit, not \(4,"):
        energy.free_energy(params, np.zeros((4, 2), np.float32))
    large = energy.init(KEY, 30, 25)
    with pytest.raises(InputError, match="smaller layer has 25 units, too many to enumerate: estimate log Z by"):
        energy.log_partition_by_enumeration(large)
    position = (jnp.zeros(2),)
    with pytest.raises(InputError, match="position must be a tuple of 2 arrays"):
        energy.kernel(params).init(position)
