"""The networks for vectors and how they depend on time, against numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, special

from diffjax.nets.temporal import TimeReadout, bumps, hats
from diffjax.nets.vectors import MLP, RBF


def random_params(net, *inputs):
    params = jax.jit(net.init)(jax.random.key(0), *inputs)
    return jax.tree.map(lambda p: 0.5 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def test_bumps_are_normalised_gaussians_at_equal_distances():
    t = np.linspace(0, 1, 13)
    centres = np.arange(5) / 4
    want = np.exp(-0.5 * ((t[:, None] - centres) / 0.25) ** 2)
    np.testing.assert_allclose(bumps(jnp.asarray(t), 5), want / want.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(bumps(jnp.asarray(t), 1), 1.0)


@pytest.mark.fast(1)
@pytest.mark.parametrize("knots", [2, 5, 41])
def test_the_read_out_is_interpolated_between_its_knots(knots):
    t = np.sort(np.random.default_rng(0).random(30))
    values = np.random.default_rng(1).normal(size=(knots, 3))
    want = interpolate.interp1d(np.linspace(0, 1, knots), values, axis=0)(t)
    np.testing.assert_allclose(hats(jnp.asarray(t), knots) @ values, want, atol=1e-5)

    net = TimeReadout(3, knots)
    h = jax.random.normal(jax.random.key(2), (30, 4))
    params = random_params(net, h, jnp.asarray(t))
    maps = np.asarray(params["params"]["Dense_0"]["kernel"]).reshape(4, knots, 3)
    offsets = np.asarray(params["params"]["Dense_0"]["bias"]).reshape(knots, 3)
    at_t = interpolate.interp1d(np.linspace(0, 1, knots), maps, axis=1)(t)
    shift = interpolate.interp1d(np.linspace(0, 1, knots), offsets, axis=0)(t)
    want = np.einsum("bi,ibo->bo", h, at_t) + shift
    np.testing.assert_allclose(net.apply(params, h, jnp.asarray(t)), want, atol=1e-4)


def test_one_knot_a_state_gives_every_step_a_map_of_its_own():
    """The gradient of the output at step i reaches the i-th map alone."""
    net = TimeReadout(1, 11)
    h = jnp.ones((1, 2))
    params = random_params(net, h, jnp.ones(1))
    for i in (1, 4, 10):
        grad = jax.grad(lambda p, i=i: net.apply(p, h, jnp.array([i / 10])).sum())(params)
        touched = np.abs(np.asarray(grad["params"]["Dense_0"]["bias"])) > 1e-5
        np.testing.assert_array_equal(np.flatnonzero(touched), [i])


@pytest.mark.fast(1)
@pytest.mark.parametrize("local", [False, True])
def test_radial_basis_functions(local):
    net = RBF(6, 3, 4, local)
    x, t = jax.random.normal(jax.random.key(1), (20, 2)), jnp.full(20, 2 / 3)
    params = random_params(net, x, t)
    p = jax.tree.map(np.asarray, params["params"])
    offset = np.asarray(x)[:, None] - p["centres"]
    w = special.softmax(-0.5 * (offset**2).sum(-1) / np.exp(p["log_width"]) ** 2, axis=1)
    h = np.concatenate([w, (w[..., None] * offset).reshape(20, -1)], 1) if local else w
    read = p["TimeReadout_0"]["Dense_0"]
    want = h @ read["kernel"].reshape(-1, 4, 3)[:, 2] + read["bias"].reshape(4, 3)[2]
    np.testing.assert_allclose(net.apply(params, x, t), want, atol=1e-4)


@pytest.mark.slow
def test_sigmoid_layers():
    net = MLP((5, 4), 2, 3)
    x, t = jax.random.normal(jax.random.key(1), (20, 7)), jnp.full(20, 0.5)
    params = random_params(net, x, t)
    p = jax.tree.map(np.asarray, params["params"])
    h = np.asarray(x)
    for name in ("Dense_0", "Dense_1"):
        h = special.expit(h @ p[name]["kernel"] + p[name]["bias"])
    read = p["TimeReadout_0"]["Dense_0"]
    want = h @ read["kernel"].reshape(-1, 3, 2)[:, 1] + read["bias"].reshape(3, 2)[1]
    np.testing.assert_allclose(net.apply(params, x, t), want, atol=1e-4)
    np.testing.assert_array_equal(net.apply(net.init(jax.random.key(0), x, t), x, t), 0.0)
