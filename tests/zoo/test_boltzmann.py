"""Boltzmann machines as systems: log p(x) of their reports against all states, their memories, bad configurations."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import data, energy, zoo
from diffjax.errors import InputError
from diffjax.evaluation import measure
from diffjax.evaluation.partition import Partition
from diffjax.mesh import make_mesh
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.energy.dbm import dbm
from diffjax.zoo.energy.dbn import dbn
from diffjax.zoo.energy.rbm import rbm

KEY = jax.random.key(11)
SHAPE = (2, 2, 1)
X = np.random.default_rng(0).integers(0, 2, (12, *SHAPE)).astype(np.uint8)


def config(system, **fields):
    found = importlib.import_module(f"configs.{system}_digits").get_config()
    for name, value in fields.items():
        section, _, field = name.partition("__")
        found[section][field] = value
    return found


def randomized(model):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def measured(model, params, examples, levels, **options):
    test_set = data.from_arrays("examples", examples, levels=levels)
    options = {"batch_size": 12, "num_examples": 0, "annealing_chains": 500, "density_weights": 1} | options
    mesh = make_mesh(devices=jax.devices()[:1])
    return measure.evaluate(measure.Trained(model, "example", params, KEY, options, mesh, test_set, lambda: test_set))


@pytest.fixture(scope="module")
def machine():
    return rbm(SHAPE, 2, 3, objective="pcd", num_chains=7, k=2, temperatures=50, sample_steps=3)


def test_the_report_of_a_restricted_machine_is_exact_and_annealing_agrees(machine):
    params = randomized(machine)
    v = X.reshape(12, 4).astype(np.float32)
    log_z = float(energy.log_partition_by_enumeration(params))  # of the table, see tests/energy
    log_p = np.asarray(-energy.free_energy(params, v), float) - log_z
    report = measured(machine, params, X, 2)
    np.testing.assert_allclose(report["log p"]["nats"], log_p.mean(), atol=1e-5)
    np.testing.assert_allclose(report["log p"]["standard_error_nats"], log_p.std(ddof=1) / 12**0.5, rtol=1e-4)
    np.testing.assert_allclose(report["log Z"]["exact"], log_z, rtol=1e-6)
    assert abs(report["log Z"]["nats"] - log_z) < 5 * report["log Z"]["standard_error_nats"] < 0.5
    assert machine.measure(Partition).headline(report).startswith(f"log p(x) = {log_p.mean():.2f} ± ")


@pytest.mark.slow
def test_persistent_chains_move_by_gibbs_under_the_new_parameters(machine):
    settings = training_config({"learning_rate": 0.1, "warmup": 0, "grad_clip": 0.0, "ema_decay": 0.0})
    state = init_state(KEY, machine, optimizer(settings))
    step = jax.jit(make_step(machine, optimizer(settings), settings))
    new, metrics = step(state, KEY, {"image": X})
    assert new.memory.shape == (7, 4)
    assert set(np.unique(new.memory)) <= {0, 1}
    assert (np.asarray(new.memory) != np.asarray(state.memory)).any()
    v = X.reshape(12, 4).astype(np.float32)
    expected = energy.free_energy(state.params, v).mean() - energy.free_energy(state.params, state.memory).mean()
    np.testing.assert_allclose(metrics["loss"], expected, atol=1e-5)
    fair = jax.tree.map(lambda leaf: 0 * leaf, new.params)
    sure = fair | {"visible": fair["visible"] + 30.0}  # then all chains are on
    key = jax.random.key(1)
    assert np.asarray(machine.memory.update(state.memory, key, sure, {}, None)).min() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dbn", "dbm"])
def test_the_reports_of_deep_ones_bound_the_likelihood(name):
    """Of 4-2-2 units: log p(x) by all states is above the bound, and near it by many weights of the belief network."""
    numbers = {"temperatures": 100, "num_chains": 5, "sample_steps": 2}
    model = dbn(SHAPE, (2, 2), stack_steps=1, **numbers) if name == "dbn" else dbm(SHAPE, (2, 2), **numbers)
    params = randomized(model)
    v = X.reshape(12, 4).astype(np.float32)
    if name == "dbm":
        two = energy.bipartite(params)
        h = jnp.asarray([[a, b] for a in (0, 1) for b in (0, 1)], jnp.float32)
        layers = [v[:, None, None], h[None, :, None], h[None, None]]
        log_f = jax.nn.logsumexp(-energy.deep_energy(params, layers), axis=(1, 2))
        log_p = np.asarray(log_f - energy.log_partition_by_enumeration(two), float)
        report = measured(model, params, X, 2)
        slack = 1.0
    else:
        draws = jax.vmap(lambda key: energy.belief.log_weight(params, key, v))(jax.random.split(KEY, 20_000))
        log_f = jax.nn.logsumexp(draws, axis=0) - np.log(20_000)
        log_p = np.asarray(log_f - energy.log_partition_by_enumeration(params["machines"][-1]), float)
        report = measured(model, params, X, 2, density_weights=200)
        slack = 0.1
        assert report["log p by one weight"]["nats"] < report["log p"]["nats"]
    error = 5 * report["log Z"]["standard_error_nats"] + 0.02
    assert log_p.mean() - slack < report["log p"]["nats"] < log_p.mean() + error


@pytest.mark.slow
def test_a_belief_network_stacks_and_then_fine_tunes():
    model = dbn(SHAPE, (3, 2), stack_steps=1, num_chains=6, temperatures=5, sample_steps=2)
    settings = training_config({"learning_rate": 0.1, "warmup": 0, "grad_clip": 0.0, "ema_decay": 0.0})
    state = init_state(KEY, model, optimizer(settings))
    step = jax.jit(make_step(model, optimizer(settings), settings))
    first, _ = step(state, KEY, {"image": X})
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((first.params["up"], first.params["down"])))
    second, _ = step(first, KEY, {"image": X})
    assert int(second.memory["step"]) == 2
    # The hidden layer learns both ways at the second step; chains of the lower machine rest, those of the top do not.
    for part in ("up", "down"):
        assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(second.params[part]))
    chains = [np.asarray(c) for c in first.memory["chains"]], [np.asarray(c) for c in second.memory["chains"]]
    assert (chains[0][0] == chains[1][0]).all()
    assert (chains[0][1] != chains[1][1]).any()


@pytest.mark.slow
def test_real_visible_units_bound_levels_in_nats():
    """The density of levels made continuous, in their units: with weights 0 it is that of independent Gaussians."""
    model = zoo.make(config("rbm", rbm__visible="real", rbm__hidden=2, data__levels=17, data__shape=(8, 8, 1)))
    examples = np.random.default_rng(0).integers(0, 17, (50, 8, 8, 1)).astype(np.uint8)
    fitted = model.examples.fit(model.init(KEY), {"image": examples})
    params = fitted | {"weights": 0 * fitted["weights"]}
    x = {"image": examples[:5]}
    found = np.asarray(model.bound(params, KEY, x), float)
    mean, variance = np.asarray(params["visible"], float), np.exp(np.asarray(params["log_variance"], float))
    cells = examples[:5].reshape(5, 64) / 8.0 - 1.0
    # -E over the uniform draw in a cell of width 1/8, of the log density less log of the cells' density.
    log_p = -0.5 * ((cells - mean) ** 2 + (1 / 8) ** 2 / 12) / variance - 0.5 * np.log(2 * np.pi * variance)
    assert np.abs(found - (log_p.sum(1) - 64 * np.log(8))).max() < 1.5
    assert abs(found - (log_p.sum(1) - 64 * np.log(8))).mean() < 1.0


@pytest.mark.parametrize(
    ("system", "fields", "message"),
    [
        ("rbm", {"data__levels": 17}, "visible units that are bits take no data.levels=17: set data.levels=2 and"),
        ("rbm", {"rbm__k": 0}, "rbm.k must be an integer of at least 1, the number of Gibbs steps, not 0"),
        ("rbm", {"rbm__num_chains": 0}, "rbm.num_chains must be an integer of at least 1, the number of chains, not 0"),
        ("rbm", {"rbm__objective": "pcd2"}, "rbm.objective must be one of cd, pcd, not 'pcd2'"),
        ("rbm", {"rbm__visible": "grey"}, "rbm.visible must be one of bits, real, not 'grey'"),
        ("rbm", {"evaluation__temperatures": 0}, "evaluation.temperatures must be an integer of at least 1"),
        ("dbn", {"dbn__hidden": (5,)}, "dbn.hidden must be the bits of at least two hidden layers"),
        ("dbn", {"dbn__stack_steps": -1}, "dbn.stack_steps must be an integer of at least 0, not -1"),
        ("dbn", {"data__levels": 17}, "visible units that are bits take no data.levels=17"),
        ("dbm", {"dbm__sweeps": 0}, "dbm.sweeps must be an integer of at least 1, the number of sweeps, not 0"),
        ("dbm", {"dbm__num_chains": 0}, "dbm.num_chains must be an integer of at least 1"),
        ("gsn", {"gsn__walkbacks": 0}, "gsn.walkbacks must be an integer of at least 1, the steps of a chain, not 0"),
        ("gsn", {"gsn__corruption": 1.5}, r"gsn.corruption is the part of x that is replaced, in \[0, 1\], not 1.5"),
        ("gsn", {"gsn__hidden": ()}, "gsn.hidden must be the numbers of units of the hidden layers"),
        ("cae", {"autoencoder__walk_noise": 0.0}, "autoencoder.walk_noise must be a finite number above 0, not 0.0"),
        ("cae", {"autoencoder__walk_steps": 0}, "autoencoder.walk_steps must be an integer of at least 1, not 0"),
    ],
)
def test_bad_configurations_are_named(system, fields, message):
    with pytest.raises(InputError, match=message):
        zoo.make(config(system, **fields))


def test_no_annealed_chain_and_visible_units_that_are_no_bits_are_refused(machine):
    with pytest.raises(InputError, match=r"evaluation.annealing_chains = 0 must be an integer of at least 1"):
        measure.check_numbers({"annealing_chains": 0})
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(machine.init, KEY))
    with pytest.raises(InputError, match="v has values other than 0 and 1, and the visible units are bits: binarise v"):
        machine.bound(params, KEY, {"image": 5 * X})
