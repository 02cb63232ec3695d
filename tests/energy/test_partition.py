"""Annealed importance sampling of machines against the sum over all states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import energy
from diffjax.errors import InputError
from tests.energy import machines

KEY = jax.random.key(5)


def machine(rng, visible, hidden):
    shapes = {"weights": (visible, hidden), "visible": (visible,), "hidden": (hidden,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def estimate():
    return jax.jit(energy.log_partition_by_annealing, static_argnums=4)


def test_of_20_by_10_units_the_mean_weight_is_z(estimate):
    """Also with few temperatures, where weights vary: the estimate stays unbiased, and only its error grows."""
    params = machine(np.random.default_rng(0), 20, 10)
    # The sum over the 1024 states of the hidden layer, in numpy.
    h = machines.states(10)
    exact = np.logaddexp(0, params["visible"] + h @ params["weights"].T.astype(float)).sum(1) + h @ params["hidden"]
    log_z = np.logaddexp.reduce(exact)
    np.testing.assert_allclose(energy.log_partition_by_enumeration(params), log_z, rtol=1e-6)
    deviations = {}
    for num in (20, 150):
        log_w = np.asarray(estimate(params, KEY, jnp.zeros(20), energy.betas(num), 500), float)
        w = np.exp(log_w - log_z)
        assert abs(w.mean() - 1) < 5 * w.std() / len(w) ** 0.5
        deviations[num] = w.std()
    assert deviations[150] < 0.6 * deviations[20]
    assert deviations[150] < 1


@pytest.mark.slow
def test_base_rates_near_the_machine_s_make_the_weights_vary_less(estimate):
    rng = np.random.default_rng(1)
    params = machine(rng, 20, 10) | {"visible": np.full(20, 3.0, np.float32)}
    log_z = float(energy.log_partition_by_enumeration(params))
    v = rng.random((500, 20)) < 0.95
    spread = []
    for base in (jnp.zeros(20), energy.centre_of(params, jnp.asarray(v, jnp.float32))):
        w = np.exp(np.asarray(estimate(params, KEY, base, energy.betas(20), 1000), float) - log_z)
        assert abs(w.mean() - 1) < 5 * w.std() / len(w) ** 0.5
        spread.append(w.std())
    assert spread[1] < 0.7 * spread[0]


@pytest.mark.slow
def test_of_real_visible_units_too():
    params = machines.params(real=True)
    log_z = float(energy.log_partition_by_enumeration(params))  # quadrature agrees, see test_machine.py
    base = np.array([0.3, 0.0, -0.5], np.float32)
    log_w = energy.log_partition_by_annealing(params, KEY, base, energy.betas(100), 2000)
    w = np.exp(np.asarray(log_w, float) - log_z)
    assert abs(w.mean() - 1) < 5 * w.std() / len(w) ** 0.5
    assert 0 < w.std() < 1


def test_bad_numbers_are_named():
    with pytest.raises(InputError, match="num_chains must be an integer of at least 1, the number of chains, not 0"):
        energy.log_partition_by_annealing(machines.params(), KEY, np.zeros(3), energy.betas(5), 0)
    with pytest.raises(InputError, match="num must be an integer of at least 1, the number of temperatures, not 0"):
        energy.betas(0)
