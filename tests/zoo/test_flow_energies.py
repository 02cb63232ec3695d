"""Flows for the four energies: log Z in closed form or by another rule, KL by quadrature, and the rising β."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from configs import flow_energies
from diffjax import flows, zoo
from diffjax.errors import InputError
from diffjax.evaluation.table import Table
from diffjax.zoo.flows import targets as energies
from diffjax.zoo.flows.energies import Fitted
from diffjax.zoo.flows.layers import stack


def small(**flow):
    config = flow_energies.get_config()
    config.flow.update(dict(num_layers=(1, 3), features=(4,)) | flow)
    config.evaluation.update(batch_size=20_000, grid=50)
    return config


def in_numpy(x, y):
    """U_1 .. U_4 with the box, in double precision, without logarithms of sums of what may vanish."""
    sine, bump, step = np.sin(2 * np.pi * x / 4), 3 * np.exp(-0.5 * ((x - 1) / 0.6) ** 2), 3 * expit((x - 1) / 0.3)

    def bell(a, width):
        return np.exp(-0.5 * (a / width) ** 2)

    outside = 0.5 * sum(np.clip(np.abs(a) - 4, 0, None) ** 2 for a in (x, y)) / 0.25**2
    each = [
        bell(np.hypot(x, y) - 2, 0.4) * (bell(x - 2, 0.6) + bell(x + 2, 0.6)),
        bell(y - sine, 0.4),
        bell(y - sine, 0.35) + bell(y - sine + bump, 0.35),
        bell(y - sine, 0.4) + bell(y - sine + step, 0.35),
    ]
    return np.stack(each, -1) * np.exp(-outside)[..., None]


def test_the_energies_and_their_integrals():
    axis = np.linspace(-5.4, 5.4, 61)
    x, y = np.meshgrid(axis, axis)
    exact = in_numpy(x, y)
    seen = exact > 1e-25
    found = np.asarray(jax.jit(energies.energies)(energies.on_grid(axis)), float)
    np.testing.assert_allclose(found[seen], -np.log(exact[seen]), rtol=1e-5, atol=1e-5)

    log_z = energies.log_z()
    # Of U_2 the integral is known: of a Gaussian across, and along z_1 of the box and its edges.
    root = np.sqrt(2 * np.pi)
    np.testing.assert_allclose(log_z[1], np.log(root * 0.4 * (8 + root * 0.25)), atol=1e-6)
    nodes, weights = np.polynomial.legendre.leggauss(300)
    x, y = np.meshgrid(7 * nodes, 7 * nodes)
    gauss = np.log(np.einsum("i,j,ijk->k", 7 * weights, 7 * weights, in_numpy(x, y)))
    np.testing.assert_allclose(log_z, gauss, atol=1e-5)


@pytest.mark.slow
def test_continuous_flows_of_several_energies_have_their_own_densities():
    """Mapped over the energies, each solves its own equation: log q of draws is that by the inverse."""
    how = flows.Integration(rtol=1e-6, atol=1e-6)
    fitted = Fitted({1: stack("continuous", (2,), 1, features=(4,), integration=how)})

    @jax.jit
    def everything(key):
        params = jax.tree.map(lambda p: p + jax.random.normal(key, p.shape), fitted.init(key))
        z, log_q = fitted.push(params, 1, jax.random.normal(key, (30, 4, 2)))
        return z, log_q, fitted.log_densities(params, z.reshape(5, 6, 4, 2))

    z, log_q, found = everything(jax.random.key(0))
    np.testing.assert_allclose(found.reshape(30, 4), log_q, atol=1e-3)
    assert abs(np.diff(z, axis=1)).min(0).max() > 1e-2  # four maps


@pytest.mark.slow
def test_kl_by_draws_is_kl_by_quadrature():
    """Of flows moved at random: their densities, by the inverse, integrate to 1, and give the KL that draws do."""
    config = small(base_scale=0.5, num_layers=(3,))
    model = zoo.make(config)

    @jax.jit
    def moved(key):
        leaves, tree = jax.tree.flatten(model.init(key))
        noise = [
            leaf + 0.2 * jax.random.normal(jax.random.fold_in(key, i), leaf.shape) for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(tree, noise)

    params = moved(jax.random.key(0))
    batch = np.zeros((10, 2), np.float32)
    rows = model.measure(Table).table(params, jax.random.key(1), batch)
    panels = model.figures.own(params, jax.random.key(2), batch)["densities"].rows
    for energy, (row, log_z) in enumerate(zip(panels, energies.log_z(), strict=True)):
        for panel, n in zip(row[1:], (3,), strict=True):
            weights = panel.density * (panel.x[1] - panel.x[0]) ** 2
            np.testing.assert_allclose(weights.sum(), 1, atol=3e-3)
            negative = np.log(in_numpy(*np.meshgrid(panel.x, panel.y))[..., energy])
            inside = weights > 0
            log_q = np.log(panel.density[inside])
            kl = (weights[inside] * (log_q - negative[inside])).sum() + log_z
            found = rows[f"U{energy + 1}, {n} layers"]
            # What lies beyond the picture is a thousandth of the mass, and costs a hundred nats at most.
            assert abs(found["KL"] - kl) < 5 * found["standard error"] + 0.02 * (1 + abs(kl))
            assert found["bound"] < found["L_100"] < found["log Z"] + 5 * found["its error"]


@pytest.mark.slow
def test_the_energy_rises_to_its_full_weight():
    """The loss is linear in β until `pulled` reaches flow.annealing, and -log w from then on; the force is 1."""
    model = zoo.make(small(annealing=4.0, num_layers=(2,)))
    params = jax.jit(model.init)(jax.random.key(0))
    batch = np.zeros((8, 2), np.float32)
    loss = jax.jit(jax.value_and_grad(lambda params: model.loss(params, jax.random.key(1), batch).mean()))
    values = []
    for pulled in (0.0, 2.0, 4.0, 40.0):
        value, slope = loss(params | {"pulled": jnp.array(pulled)})
        values.append(float(value))
        assert slope["pulled"] == -1.0
    np.testing.assert_allclose(values[1], 0.5 * (values[0] + values[2]), rtol=1e-5)
    np.testing.assert_allclose(values[3], values[2], rtol=1e-6)
    plain = zoo.make(small(annealing=0.0, num_layers=(2,)))
    whole = jax.jit(lambda params: plain.loss(params, jax.random.key(1), batch).mean())(params)
    np.testing.assert_allclose(values[2], whole, rtol=1e-6)
    # Adam moves what is always pulled alike by its learning rate.
    tx = optax.adam(0.1)
    state, clock = tx.init(jnp.zeros(())), jnp.zeros(())
    for _ in range(3):
        step, state = tx.update(jnp.array(-1.0), state)
        clock = clock + step
    np.testing.assert_allclose(clock, 0.3, rtol=1e-5)


@pytest.mark.slow
def test_kl_falls_with_the_length_and_both_modes_are_found():
    config = small(num_layers=(2, 16), annealing=4.0)
    model = zoo.make(config)
    tx = optax.adam(5e-3)
    batch = np.zeros((256, 2), np.float32)

    def step(carry, key):
        params, state, mean = carry
        slope = jax.grad(lambda params: model.loss(params, jax.random.split(key, 256), batch).mean())(params)
        updates, state = tx.update(slope, state)
        params = optax.apply_updates(params, updates)
        return (params, state, optax.incremental_update(params, mean, 0.005)), None

    params = jax.jit(model.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 2500)
    start = (params, tx.init(params), params)
    (_, _, params), _ = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))(start, keys)
    rows = model.measure(Table).table(params, jax.random.key(2), batch)
    for u in range(1, 5):
        short, long = (rows[f"U{u}, {n} layers"] for n in (2, 16))
        assert 0 < long["KL"] < short["KL"] - 5 * (short["standard error"] + long["standard error"])
    x = np.asarray(model.sample(params, jax.random.key(3), 2000))[:, 0]
    assert 0.3 < (x > 0).mean() < 0.7  # U_1 has two modes of equal weight


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flow.name", "spline"),
        ("flow.num_layers", (2, 2)),
        ("flow.num_layers", ()),
        ("flow.num_layers", (0, 2)),
        ("flow.base_scale", 0.0),
        ("flow.annealing", -1.0),
        ("flow.limit", 0.0),
        ("flow.shown", 5),
        ("data.shape", (3,)),
        ("data.levels", 2),
    ],
)
def test_what_cannot_be_is_named(field, value):
    config = flow_energies.get_config()
    config.unlock()
    section, name = field.split(".")
    fields = config.to_dict()
    fields[section][name] = value
    with pytest.raises(InputError, match=name):
        zoo.make(type(config)(fields))
