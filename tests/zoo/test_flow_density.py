"""Flows as density models: Jacobians, probabilities of levels that sum to 1, entropies that are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats
from scipy.special import expit

from configs import cnf_toy, flow_digits, flow_swiss_roll
from diffjax import zoo
from diffjax.data import toys
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.zoo.flows import layers as flow_layers

KEY = jax.random.key(0)
NAMES = ("Dense_0", "Dense_1")  # of a network of one hidden layer


def of_numbers(**flow):
    config = flow_swiss_roll.get_config()
    config.flow.update(dict(num_layers=3, features=(6,)) | flow)
    return config


def of_levels(shape, levels, **flow):
    config = flow_digits.get_config()
    config.data.update(shape=shape, levels=levels)
    config.flow.update(dict(num_layers=2, features=(6,)) | flow)
    return config


def moved(model, amount=0.3):
    """Parameters none of which is at its start, where layers are the identity."""

    @jax.jit
    def make(key):
        leaves, tree = jax.tree.flatten(model.init(key))
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            tree, [leaf + amount * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        )

    return make(jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affine", "autoregressive"])
def test_the_bound_is_the_change_of_variables(name):
    """By the Jacobian of the way to the latents; and samples are that way back from normal ones."""
    config = of_numbers(name=name)
    config.data.shape = (4,)
    model = zoo.make(config)
    params = moved(model)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    flow = flow_layers.of_config(config.flow, (4,), 3).flow(params)

    @jax.jit
    def everything(params, x):
        def latent(x):
            return flow.inverse_and_log_det(x)[0]

        drawn = model.sample(params, jax.random.key(1), 500)
        bound = model.bound(params, jax.random.key(0), {"image": x})
        return bound, latent(x), jax.vmap(jax.jacfwd(latent))(x), latent(drawn)

    bound, z, jacobian, white = everything(params, x)
    expected = scipy.stats.norm.logpdf(np.asarray(z, float)).sum(1) + np.linalg.slogdet(np.asarray(jacobian, float))[1]
    np.testing.assert_allclose(bound, expected, atol=2e-5)
    assert np.ptp(expected - scipy.stats.norm.logpdf(x).sum(1)) > 0.1
    assert scipy.stats.kstest(np.ravel(white), "norm").pvalue > 1e-6


def continuous(shape, **flow):
    config = cnf_toy.get_config()
    config.data.shape = shape
    config.flow.integration.update(rtol=1e-6, atol=1e-6)
    config.flow.update(dict(num_layers=2, features=(6,)) | flow)
    return config


@pytest.mark.slow
def test_a_continuous_flow_is_the_equation_of_its_networks():
    """By scipy's solver and a Jacobian by hand, of both layers and the base; the loss is more by the weighted costs."""
    model = zoo.make(continuous((2,), kinetic=0.5, jacobian=0.25))
    params = moved(model, 0.5)
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    bound, loss = jax.jit(lambda x: (model.bound(params, KEY, x), model.loss(params, jax.random.split(KEY, 3), x)))(x)
    row = model.measure(Table).table(params, KEY, {"image": x})["the way to the latents"]
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)

    def slope(t, state, layer):
        (first, a), (last, b) = ([p["layers"][name][k][layer] for k in ("kernel", "bias")] for name in NAMES)
        h = np.append(state[:2], t).dot(first) + a
        v = np.logaddexp(0, h).dot(last) + b
        jacobian = (first[:2] * expit(h)).dot(last)
        return [*v, np.trace(jacobian), -(v**2).sum(), -(jacobian**2).sum()]

    costs = []
    for n in range(3):
        state = np.append(x[n], np.zeros(3))
        for layer in (1, 0):
            solved = scipy.integrate.solve_ivp(slope, (1, 0), state, "DOP853", rtol=1e-9, atol=1e-9, args=(layer,))
            state = solved.y[:, -1]
        z = (state[:2] - p["shift"]) / np.exp(p["log_scale"])
        expected = scipy.stats.norm.logpdf(z).sum() - p["log_scale"].sum() + state[2]
        np.testing.assert_allclose(bound[n], expected, rtol=1e-4)
        np.testing.assert_allclose(loss[n], -expected + 0.5 * state[3] + 0.25 * state[4], rtol=2e-4)
        costs.append(state[3:])
    np.testing.assert_allclose([row["kinetic"], row["jacobian"]], np.mean(costs, 0), rtol=1e-4)
    assert row["calls of the velocity"] > 2 * 13 and np.min(costs) > 0.1


@pytest.mark.slow
def test_an_estimated_divergence_bounds_as_the_exact_one_does():
    """In 17 dimensions, with a key for each example as in training: of one example many estimates."""
    n = 4000
    exact, estimated = (
        zoo.make(continuous((17,), integration=dict(rtol=1e-4, atol=1e-4, divergence=divergence)))
        for divergence in ("exact", "")
    )
    params = moved(exact)
    x = np.random.default_rng(0).normal(size=(1, 17)).astype(np.float32)
    found = jax.jit(estimated.bound)(params, jax.random.split(KEY, n), np.repeat(x, n, 0))
    found = np.asarray(found, float)
    error = found.std(ddof=1) / n**0.5
    assert abs(found.mean() - jax.jit(exact.bound)(params, KEY, x)[0]) < 5 * error + 1e-3 and 1e-4 < error < 0.05


@pytest.mark.fast(1)
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_probabilities_of_levels_sum_to_one(margin):
    """The mean of w over dequantisations is P(x), and over all x it sums to the mass on [0, 1]²."""
    config = of_levels((1, 2, 1), 3, margin=margin, base_scale=1.0 if margin else 0.1)
    model = zoo.make(config)
    params = jax.jit(model.init)(jax.random.key(0))
    if not margin:
        params = params | {"shift": params["shift"] + jnp.array([0.3, 0.6])}
    every = np.array(list(itertools.product(range(3), range(3))), np.uint8).reshape(9, 1, 2, 1)
    num = 4000
    log_w = jax.jit(
        lambda key: model.measure(ManySamples).log_weight(params, key, {"image": np.repeat(every, num, 0)})
    )(jax.random.key(1))
    w = np.exp(np.asarray(log_w, float)).reshape(9, num)
    error = np.sqrt((w.var(1) / num).sum())
    edge = np.log(0.95 / 0.05)
    inside = (
        np.diff(scipy.stats.norm.cdf([-edge, edge]))[0] ** 2
        if margin
        else np.prod([np.diff(scipy.stats.norm(mean, 0.1).cdf([0, 1]))[0] for mean in (0.3, 0.6)])
    )
    assert abs(w.mean(1).sum() - inside) < 5 * error and error < 0.02

    drawn = np.asarray(jax.jit(lambda key: model.sample(params, key, 4000))(jax.random.key(2)))
    assert set(np.unique(drawn)) <= {-1.0, 0.0, 1.0} and drawn.shape == (4000, 1, 2, 1)
    middle = (drawn == 0).all((1, 2, 3)).mean()
    assert abs(middle - w[4].mean()) < 5 * np.sqrt(middle * (1 - middle) / 4000 + w[4].var() / num)


@pytest.mark.slow
def test_levels_and_images_are_the_same_data():
    model = zoo.make(of_levels((2, 2, 1), 17))
    params = moved(model)
    levels = np.random.default_rng(0).integers(0, 17, (6, 2, 2, 1)).astype(np.uint8)
    bound = jax.jit(model.bound)
    found = bound(params, jax.random.key(0), {"image": levels})
    np.testing.assert_allclose(found, bound(params, jax.random.key(0), levels / 8.0 - 1.0), atol=2e-4)
    terms = jax.jit(model.measure(Bound).terms)(params, jax.random.key(0), {"image": levels})
    np.testing.assert_allclose(terms["units"], 4 * np.log(17))
    np.testing.assert_allclose(-sum(terms.values()), found, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoregressive", "affine"])
def test_training_finds_the_entropy_of_a_gaussian(name):
    sigmas = (0.6, 2.0)
    model = zoo.make(of_numbers(name=name, num_layers=2, features=(16,)))
    tx = optax.adam(optax.linear_schedule(1e-2, 1e-4, 800))

    def step(carry, x):
        params, state = carry
        slope = jax.grad(lambda params: model.loss(params, jax.random.key(0), x).mean())(params)
        updates, state = tx.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    rng = np.random.default_rng(0)
    data = toys.correlated(rng, 800 * 256, sigmas).reshape(800, 256, 2)
    params = jax.jit(model.init)(jax.random.key(0))
    (params, _), _ = jax.jit(lambda carry, x: jax.lax.scan(step, carry, x))((params, tx.init(params)), data)
    x = toys.correlated(rng, 20_000, sigmas)
    bound = np.asarray(jax.jit(model.bound)(params, jax.random.key(0), x), float)
    # z_1 - z_2 and z_1 + z_2 are independent, of these widths, and twice the area of z.
    exact = scipy.stats.norm(0, sigmas[0]).logpdf(x[:, 0] - x[:, 1]) + scipy.stats.norm(0, sigmas[1]).logpdf(x.sum(1))
    exact = exact + np.log(2)
    np.testing.assert_allclose(exact.mean(), -1 - np.log(np.pi * sigmas[0] * sigmas[1]), atol=0.04)
    gap = exact - bound
    assert -5 * gap.std() / len(x) ** 0.5 < gap.mean() < 0.015


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (flow_swiss_roll, "flow.name", "spline"),
        (flow_swiss_roll, "flow.num_layers", 0),
        (flow_swiss_roll, "flow.num_layers", 2.5),
        (flow_swiss_roll, "flow.base_scale", -1.0),
        (flow_swiss_roll, "flow.limit", 0.0),
        (flow_swiss_roll, "flow.margin", 0.1),
        (cnf_toy, "flow.kinetic", -1.0),
        (cnf_toy, "flow.jacobian", float("nan")),
        (cnf_toy, "flow.integration", {"adjoint": "direct"}),
        (cnf_toy, "flow.integration", {"rtol": 0.0}),
        (cnf_toy, "flow.integration", {"divergence": "trace"}),
        (flow_digits, "flow.margin", 0.5),
        (flow_digits, "data.levels", 1),
    ],
)
def test_what_cannot_be_is_named(config, field, value):
    fields = config.get_config().to_dict()
    section, name = field.split(".")
    fields[section][name] = value
    with pytest.raises(InputError, match=next(iter(value)) if isinstance(value, dict) else name):
        zoo.make(type(config.get_config())(fields))


def test_costs_of_a_flow_that_is_not_continuous_are_refused():
    config = cnf_toy.get_config()
    config.flow.update(name="affine", kinetic=0.1)
    with pytest.raises(InputError, match=r"flow.kinetic must .* unless flow.name is continuous"):
        zoo.make(config)


def test_a_coupling_of_one_number_is_refused():
    config = of_numbers(name="affine")
    config.data.shape = (1,)
    with pytest.raises(InputError, match="at least 2"):
        zoo.make(config)
