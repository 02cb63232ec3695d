"""Autoregressive models as systems: mixtures of orders, the loss of all orders, completion, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import made_digits, nade_mnist, pixelcnn_digits
from diffjax import autoregressive as ar
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.zoo.autoregressive import networks
from diffjax.zoo.autoregressive.autoregressive import autoregressive

KEY, SHAPE = jax.random.key(0), (2, 2, 1)
ALL = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, *SHAPE)
ORDERS = [np.array([0, 1, 2, 3]), np.array([3, 1, 0, 2])]


def shaken(init):
    """Parameters that are nowhere zero, where some layers begin at zero. Nothing is compiled."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), jax.eval_shape(init, KEY))


def test_a_mixture_of_orders_is_the_mean_of_their_probabilities():
    """And a distribution: the probabilities of all arrays sum to 1. Samples follow it (chi-square)."""
    network = networks.made(SHAPE, 2, (16,))
    model = autoregressive(network, SHAPE, ORDERS)
    params = shaken(model.init)
    p = np.exp(np.float64(jax.jit(model.bound)(params, KEY, {"image": ALL})))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    x = jnp.asarray(ALL.reshape(16, 4), jnp.int32)
    order_of = jnp.asarray(ORDERS)
    log_p = jax.jit(lambda m: ar.log_prob(network.conditionals(params, order_of[m], m), x))
    each = [np.exp(np.float64(log_p(m))) for m in range(2)]
    np.testing.assert_allclose(p, np.mean(each, 0), rtol=1e-4)
    assert np.abs(each[0] - each[1]).max() > 0.01
    n = 8000
    drawn = (np.asarray(jax.jit(model.sample, static_argnums=2)(params, KEY, n)).reshape(n, 4) > 0) @ [8, 4, 2, 1]
    counts = np.bincount(drawn, minlength=16)
    assert abs(((counts - n * p) ** 2 / (n * p)).sum() - 15) < 5 * np.sqrt(30)
    draws = model.memory.draw((), KEY, 5)["order"]
    assert len(set(np.asarray(draws))) == 1  # one order for the whole batch
    losses = jax.jit(model.loss)(params, KEY, {"image": ALL, "order": jnp.ones(16, int)})
    np.testing.assert_allclose(losses, -np.log(each[1]) / 4, rtol=1e-4)


@pytest.mark.slow
def test_the_loss_of_sets_is_unbiased_for_the_mean_over_all_orders():
    """Against all 24 orders of four places, for one array (Uria et al. 2014)."""
    network = networks.deep_nade(SHAPE, 2, (8,))
    model = autoregressive(network, SHAPE, ORDERS)
    params = shaken(model.init)
    x = jnp.asarray(ALL[11].reshape(1, 4), jnp.int32)
    log_p = jax.jit(lambda order: ar.log_prob(network.conditionals(params, order), x)[0])
    want = -np.mean([float(log_p(jnp.array(order))) for order in itertools.permutations(range(4))]) / 4
    n = 40_000
    losses = np.float64(jax.jit(model.loss)(params, KEY, {"image": np.repeat(ALL[11][None], n, 0)}))
    assert abs(losses.mean() - want) < 5 * losses.std() / np.sqrt(n)


@pytest.mark.slow
def test_a_completed_image_keeps_its_upper_half():
    config = pixelcnn_digits.get_config()
    config.data.shape = (4, 4, 1)
    config.net.update(features=4, depth=1, mixtures=2)
    model = zoo.make(config)
    params = model.init(KEY)
    x = np.random.default_rng(0).integers(0, 17, (8, 4, 4, 1)).astype(np.uint8)
    rows = np.asarray(model.figures.own(params, KEY, {"image": x})["completed"].images).reshape(5, 8, 4, 4)
    levels = x[..., 0] / 8.0 - 1.0
    np.testing.assert_allclose(rows[0], levels, atol=1e-6)
    np.testing.assert_allclose(rows[1, :, :2], levels[:, :2], atol=1e-6)
    for row in rows[2:]:
        np.testing.assert_allclose(row[:, :2], levels[:, :2], atol=1e-6)
        assert np.abs(row[:, 2:] - levels[:, 2:]).max() > 0.1


@pytest.mark.parametrize(
    ("module", "fields", "words"),
    [
        (made_digits, {"ar.order": (0, 1)}, r"an order of 64 places must have each of 0 \.\. 63 once"),
        (made_digits, {"ar.order": "spiral"}, "ar.order must be 'raster', 'random' or a permutation"),
        (made_digits, {"ar.orders": 0}, "ar.orders = 0 must be an integer of at least 1"),
        (made_digits, {"data.levels": 0}, "data.levels=0 stands for real numbers"),
        (pixelcnn_digits, {"ar.order": "random"}, "takes the raster order alone: set ar.orders=1"),
        (pixelcnn_digits, {"data.shape": (64,)}, r"is of images \(H, W, C\) or maps \(H, W\)"),
        (nade_mnist, {"net.name": "net"}, "net.name must be one of transformer, made, nade, deep_nade, pixel_cnn"),
    ],
)
def test_what_is_refused(module, fields, words):
    config = module.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=words):
        zoo.make(config).init(KEY)
