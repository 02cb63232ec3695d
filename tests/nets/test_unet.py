import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffjax.errors import InputError
from diffjax.nets.unet import UNet

# one jit a network: op by op these tests would take minutes
APPLY = jax.jit(lambda net, params, *args: net.apply(params, *args), static_argnums=0)
DROP = jax.jit(lambda net, p, x, t, key: net.apply(p, x, t, None, key), static_argnums=0)
SMALL = UNet(channels=8, multipliers=(1, 2), num_blocks=1, attention=(4,), out_channels=2)


def random_params(net, *shape):
    """Parameters without the zeros of the initialisation, which would hide most of the network."""
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype), like)


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    "size, multipliers, published", [(32, (1, 2, 2, 2), 35_746_307), (256, (1, 1, 2, 2, 4, 4), 113_673_219)]
)
def test_has_exactly_the_published_number_of_parameters(size, multipliers, published):
    net = UNet(multipliers=multipliers)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published


def test_starts_as_zero_and_every_block_as_the_identity():
    net = UNet(channels=8, multipliers=(1, 1), num_blocks=1, attention=(4,))
    x, time = jax.random.normal(jax.random.key(2), (2, 8, 8, 3)), jnp.array([1.0, 9.0])
    params = jax.jit(net.init)(jax.random.key(0), x, time)
    out, seen = jax.jit(lambda p: net.apply(p, x, time, capture_intermediates=True))(params)
    seen, params = seen["intermediates"], params["params"]
    assert jnp.all(out == 0)
    assert jnp.all(seen["down_0_block_0"]["__call__"][0] == seen["conv_in"]["__call__"][0])
    assert jnp.all(seen["mid_block_2"]["__call__"][0] == seen["mid_block_1"]["__call__"][0])
    # fan_avg uniform: variance 1 / mean(fan_in, fan_out), here 2 / (9 * 8 + 9 * 8); 576 draws
    kernel = params["mid_block_1"]["conv1"]["kernel"]
    assert abs(kernel.var() * 72 - 1) < 5 * np.sqrt(0.8 / kernel.size)
    assert jnp.abs(kernel).max() <= np.sqrt(3 / 72)


@pytest.mark.slow
def test_vmap_over_examples_and_remat_keep_values_and_gradients():
    x, time = jax.random.normal(jax.random.key(2), (3, 8, 8, 1)), jnp.array([1.0, 50.0, 999.0])
    weight = jax.random.normal(jax.random.key(3), (3, 8, 8, 2))
    net = SMALL.copy(remat=True)

    def direct(params):
        out = SMALL.apply(params, x, time)
        return (out * weight).sum(), out

    def mapped(params):
        out = jax.vmap(lambda x, t: net.apply(params, x[None], t[None])[0])(x, time)
        return (out * weight).sum(), out

    params = random_params(SMALL, 8, 8, 1)
    (one, out_one), (two, out_two) = (jax.jit(jax.grad(f, has_aux=True))(params) for f in (direct, mapped))
    np.testing.assert_allclose(out_one, out_two, rtol=1e-4, atol=1e-4)
    one, two = ravel_pytree(one)[0], ravel_pytree(two)[0]
    assert jnp.linalg.norm(one - two) < 1e-4 * jnp.linalg.norm(one)


@pytest.mark.slow
def test_dropout_only_in_training():
    x, time = jax.random.normal(jax.random.key(2), (1, 8, 8, 1)), jnp.ones(1)
    params = random_params(SMALL, 8, 8, 1)
    net = SMALL.copy(dropout=0.5)
    np.testing.assert_array_equal(APPLY(net, params, x, time), APPLY(SMALL, params, x, time))
    one, two = (DROP(net, params, x, time, jax.random.key(i)) for i in (0, 1))
    assert jnp.abs(one - two).max() > 0.01


@pytest.mark.slow
def test_bfloat16_computes_roughly_the_same_from_float32_parameters():
    x, time = jax.random.normal(jax.random.key(2), (2, 8, 8, 1)), jnp.array([1.0, 50.0])
    params = random_params(SMALL, 8, 8, 1)
    net = SMALL.copy(dtype=jnp.bfloat16)
    out, exact = APPLY(net, params, x, time), APPLY(SMALL, params, x, time)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), x, time))} == {
        jnp.dtype("float32")
    }
    error = jnp.linalg.norm(out - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 0.05  # 2^-8 a rounding, accumulated over some twenty layers


@pytest.mark.slow
def test_label_shifts_the_time_embedding_and_none_is_the_last_row():
    net = SMALL.copy(num_classes=3)
    x, time = jax.random.normal(jax.random.key(2), (4, 8, 8, 1)), jnp.full(4, 7.0)
    params = random_params(net, 8, 8, 1)
    rows = params["params"]["label_embedding"]["embedding"]
    assert rows.shape == (4, 32)
    conditional = APPLY(net, params, x, time, jnp.arange(4))
    np.testing.assert_allclose(conditional[3], APPLY(net, params, x, time)[3], rtol=1e-5, atol=1e-5)
    # the network without classes whose last bias of the embedding took up the row
    for label in range(4):
        plain = {k: v for k, v in params["params"].items() if k != "label_embedding"}
        dense = plain["temb_dense1"]
        plain["temb_dense1"] = {"kernel": dense["kernel"], "bias": dense["bias"] + rows[label]}
        expected = APPLY(SMALL, {"params": plain}, x, time)[label]
        np.testing.assert_allclose(conditional[label], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "net, shape, label, words",
    [
        (UNet(attention=()), (1, 28, 28, 3), None, "28x28.*halved 3 times.*multiples of 8"),
        (UNet(attention=()), (1, 32, 12, 3), None, "32x12.*multiples of 8"),
        (UNet(attention=(16, 5)), (1, 32, 32, 3), None, r"\[5\].*\[32, 16, 8, 4\]"),
        (UNet(), (1, 32, 32, 3), 1, "num_classes"),
        (UNet(num_classes=2), (2, 32, 32, 3), 1, r"label has shape \(1,\)"),
        (UNet(), (3, 32, 32, 3), None, r"time has shape \(2,\)"),
        (UNet(channels=5), (1, 32, 32, 3), None, "channels is 5"),
        (UNet(), (32, 32, 3), None, "batch, height, width, channels"),
    ],
)
def test_bad_input_is_named(net, shape, label, words):
    label = None if label is None else jnp.zeros(label, int)
    time = jnp.zeros(2 if shape[0] == 3 else shape[0])
    with pytest.raises(InputError, match=words):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), time, label)


@pytest.mark.slow
def test_dropout_with_a_key_per_example_belongs_to_the_example():
    net = SMALL.copy(dropout=0.5)
    x, time = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), jnp.arange(4.0)
    params = random_params(SMALL, 8, 8, 1)
    keys = jax.random.split(jax.random.key(2), 4)
    whole = DROP(net, params, x, time, keys)
    np.testing.assert_allclose(DROP(net, params, x[2:], time[2:], keys[2:]), whole[2:], rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(DROP(net, params, x, time, keys[::-1]) - whole).max()) > 1e-3
