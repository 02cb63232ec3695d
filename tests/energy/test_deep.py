"""Deep Boltzmann machines of 3-2-3 and 3-2-2-2 units against all their states."""

import itertools

import jax
import numpy as np
import pytest

from diffjax import energy
from diffjax.errors import InputError
from tests.energy.machines import states

KEY = jax.random.key(6)


def machine(units):
    rng = np.random.default_rng(sum(units))
    weights = [rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(units)]
    return {"weights": weights, "biases": [rng.normal(size=num).astype(np.float32) for num in units]}


def minus_energy(params, layers):
    value = sum((x * b).sum(-1) for x, b in zip(layers, params["biases"], strict=True))
    edges = zip(layers, params["weights"], layers[1:], strict=False)
    return value + sum(np.einsum("...i,ij,...j->...", x, w.astype(float), y) for x, w, y in edges)


def table(params, units):
    """log Σ_h exp(-E(v, h)) of every v (2^v,), from the definition."""
    x = states(sum(units))
    layers = np.split(x, np.cumsum(units)[:-1], axis=1)
    return np.logaddexp.reduce(minus_energy(params, layers).reshape(2 ** units[0], -1), axis=1)


@pytest.mark.parametrize("units", [pytest.param((3, 2, 3), marks=pytest.mark.slow), (3, 2, 2, 2)])
def test_the_bipartite_machine_is_the_deep_one(units):
    params = machine(units)
    log_f = table(params, units)
    two = energy.bipartite(params)
    log_z = float(energy.log_partition_by_enumeration(two))
    np.testing.assert_allclose(log_z, np.logaddexp.reduce(log_f), rtol=1e-6)
    layers = np.split(states(sum(units)).astype(np.float32), np.cumsum(units)[:-1], axis=1)
    exact = minus_energy(params, layers)
    np.testing.assert_allclose(-np.asarray(energy.deep_energy(params, layers)), exact, atol=1e-5)
    even = np.concatenate(layers[0::2], 1)
    np.testing.assert_allclose(-np.asarray(energy.energy(two, energy.odd_layers(layers), even)), exact, atol=1e-5)


def test_mean_field_bounds_the_likelihood_rises_and_ends_where_coordinates_agree():
    units = (3, 2, 3)
    params, v = machine(units), states(3).astype(np.float32)
    log_f = table(params, units)
    found = {num: energy.mean_field(params, v, num) for num in (1, 2, 5, 200)}
    bounds = {num: np.asarray(energy.mean_field_bound(params, v, q)) for num, q in found.items()}
    # The bound of the definition: E_q of the table, with q's own entropy.
    h = states(5)
    for q, bound in ((found[1], bounds[1]), (found[200], bounds[200])):
        means = np.concatenate([np.asarray(law.mean, float) for law in q], 1)
        law = np.prod(np.where(h == 1, means[:, None], 1 - means[:, None]), -1)  # (8, 32)
        joint = minus_energy(params, [np.repeat(v[:, None], 32, 1), *np.split(np.repeat(h[None], 8, 0), [2], 2)])
        np.testing.assert_allclose(bound, (law * (joint - np.log(law))).sum(1), atol=2e-5)
    assert (np.diff(list(bounds.values()), axis=0) > -2e-6).all()
    assert (bounds[200] - bounds[1]).max() > 1e-3
    assert ((log_f - bounds[200]) > 0).all()
    one, two = (np.asarray(law.mean, float) for law in found[200])
    w1, w2 = (w.astype(float) for w in params["weights"])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    np.testing.assert_allclose(one, sigmoid(params["biases"][1] + v @ w1 + two @ w2.T), atol=1e-4)
    np.testing.assert_allclose(two, sigmoid(params["biases"][2] + one @ w2), atol=1e-4)


def test_bad_numbers_are_named():
    with pytest.raises(InputError, match="num must be an integer of at least 1, the number of sweeps of mean field"):
        energy.mean_field(machine((3, 2, 3)), np.zeros((1, 3), np.float32), 0)
    with pytest.raises(InputError, match=r"units must be those of v and of at least one hidden layer, not \(3,\)"):
        energy.deep_init(KEY, (3,))
