import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffjax.errors import InputError
from diffjax.nets.dit import DiT, TokenDiT

APPLY = jax.jit(lambda net, params, *args: net.apply(params, *args), static_argnums=0)
SMALL = DiT(patch_size=2, width=8, depth=2, heads=2, mlp_ratio=1.5, out_channels=3, num_classes=3)
TOKENS = TokenDiT(5, width=8, depth=2, heads=2)


def random_params(net, *shape):
    """Parameters without the zeros of the initialisation, which would hide most of the network."""
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.standard_normal(leaf.shape), leaf.dtype), like)


@pytest.mark.parametrize(
    "width, depth, heads, millions", [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)]
)
def test_has_the_published_number_of_parameters(width, depth, heads, millions):
    """Sizes S, B, L and XL of patch 2 (the paper's table 1 and 4), and layer by layer by hand.

    The published code counts its fixed positions as parameters too: 256 tokens of `width`.
    """
    net = DiT(2, width, depth, heads, out_channels=8, num_classes=1000)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6) == millions

    def linear(inputs, outputs):
        return (inputs + 1) * outputs

    attention = linear(width, 3 * width) + linear(width, width)
    block = linear(width, 6 * width) + attention + linear(width, 4 * width) + linear(4 * width, width)
    ends = linear(2 * 2 * 4, width) + linear(width, 2 * width) + linear(width, 2 * 2 * 8)
    condition = linear(256, width) + linear(width, width) + 1001 * width
    assert count == depth * block + ends + condition
    if width == 1152:
        assert count + 256 * width == 675_129_632  # what the published code prints for XL/2


def in_numpy(params, x, time, label):
    """DiT as the paper has it, an example and a head at a time, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)["params"]["tokens"]
    width, heads, p, out = SMALL.width, SMALL.heads, SMALL.patch_size, SMALL.out_channels
    rows, columns = x.shape[0] // p, x.shape[1] // p

    def dense(name, h, of=params):
        return h @ of[name]["kernel"] + of[name]["bias"]

    def swish(h):
        return h / (1 + np.exp(-h))

    def waves(value, size):
        angles = [value * 10000.0 ** (-i / (size // 2)) for i in range(size // 2)]
        return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])

    def modulated(h, shift, scale):
        return (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-6) * (1 + scale) + shift

    c = dense("time_dense1", swish(dense("time_dense0", waves(time, 256))))
    c = c + params["label_embedding"]["embedding"][label]
    patches = [x[p * i : p * i + p, p * j : p * j + p].ravel() for i in range(rows) for j in range(columns)]
    places = [np.append(waves(j, width // 2), waves(i, width // 2)) for i in range(rows) for j in range(columns)]
    h = dense("tokens_in", np.array(patches)) + places
    for index in range(SMALL.depth):
        block = params[f"block_{index}"]
        shift1, scale1, gate1, shift2, scale2, gate2 = dense("modulation", swish(c), block).reshape(6, width)
        q, k, v = np.split(dense("qkv", modulated(h, shift1, scale1), block), 3, axis=1)
        parts = []
        for head in range(heads):
            one = slice(head * width // heads, (head + 1) * width // heads)
            weights = np.exp(q[:, one] @ k[:, one].T / math.sqrt(width / heads))
            parts.append(weights / weights.sum(1, keepdims=True) @ v[:, one])
        h = h + gate1 * dense("proj_out", np.concatenate(parts, 1), block)
        u = dense("mlp_dense0", modulated(h, shift2, scale2), block)
        u = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        h = h + gate2 * dense("mlp_dense1", u, block)
    tokens = dense("tokens_out", modulated(h, *dense("modulation_out", swish(c)).reshape(2, width)))
    image = np.zeros((*x.shape[:2], out))
    for n, token in enumerate(tokens):
        i, j = divmod(n, columns)
        image[p * i : p * i + p, p * j : p * j + p] = token.reshape(p, p, out)
    return image


def test_is_the_papers_network_and_no_label_is_the_null_label():
    x, time = np.asarray(jax.random.normal(jax.random.key(2), (3, 4, 6, 2))), np.array([0.0, 7.0, 999.0], np.float32)
    params = random_params(SMALL, 4, 6, 2)
    label = np.array([0, 2, 3])  # 3 stands for none
    out = APPLY(SMALL, params, x, time, label)
    assert out.dtype == jnp.float32
    for i in range(3):
        expected = in_numpy(params, x[i].astype(np.float64), float(time[i]), label[i])
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(out[i], expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(APPLY(SMALL, params, x, time)[2], out[2], rtol=1e-5, atol=1e-5)


def test_starts_as_zero_with_every_block_the_identity():
    net = SMALL.copy(width=32)
    x, time = jax.random.normal(jax.random.key(2), (2, 4, 4, 1)), jnp.array([1.0, 9.0])
    params = jax.jit(net.init)(jax.random.key(0), x, time)
    out, seen = jax.jit(lambda p: net.apply(p, x, time, capture_intermediates=True))(params)
    assert jnp.all(out == 0)
    seen, params = seen["intermediates"]["tokens"], params["params"]["tokens"]
    assert jnp.all(seen["block_0"]["__call__"][0] == seen["block_1"]["__call__"][0])
    assert jnp.abs(seen["block_1"]["__call__"][0] - seen["tokens_in"]["__call__"][0]).max() > 0.5  # the positions
    # Xavier: uniform of variance 2 / (inputs + outputs), here 2 / (32 + 96); fourth moment 9/5 of its square
    kernel = params["block_1"]["qkv"]["kernel"]
    assert abs(kernel.var() * 64 - 1) < 5 * np.sqrt(0.8 / kernel.size)
    assert jnp.abs(kernel).max() <= np.sqrt(3 / 64)
    for normal in (params["time_dense0"]["kernel"], params["label_embedding"]["embedding"]):
        assert abs(normal.var() / 0.02**2 - 1) < 5 * np.sqrt(2 / normal.size)


def test_tokens_are_told_apart_by_their_positions_alone():
    x, time = jax.random.normal(jax.random.key(2), (2, 6, 3)), jnp.array([1.0, 50.0])
    params = random_params(TOKENS, 6, 3)
    order = np.array([3, 0, 5, 1, 2, 4])
    places = jax.random.uniform(jax.random.key(3), (6, 2), maxval=9.0)

    def out(x, positions):
        return APPLY(TOKENS, params, x, time, None, None, positions)

    for positions in (jnp.zeros((6, 1)), places):
        moved = out(x[:, order], positions[order])
        np.testing.assert_allclose(moved, out(x, positions)[:, order], rtol=1e-4, atol=1e-4)
    default = APPLY(TOKENS, params, x, time)
    np.testing.assert_array_equal(default, out(x, jnp.arange(6.0)[:, None]))
    assert jnp.abs(APPLY(TOKENS, params, x[:, order], time) - default[:, order]).max() > 0.1


@pytest.mark.slow
def test_gradients_are_finite_and_roughly_the_same_in_bfloat16():
    """From float32 parameters, with recomputation; of examples of 16 bits and of any size."""
    x = 1e3 * jax.random.normal(jax.random.key(2), (2, 4, 4, 1), jnp.bfloat16)
    time, params = jnp.array([1.0, 999.0]), random_params(SMALL, 4, 4, 1)
    weight = jax.random.normal(jax.random.key(3), (2, 4, 4, 3))

    def slopes(net):
        slope = jax.jit(jax.grad(lambda params: (net.apply(params, x, time) * weight).sum()))(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(slope)} == {jnp.dtype("float32")}
        return ravel_pytree(slope)[0]

    exact, rough = slopes(SMALL), slopes(SMALL.copy(dtype=jnp.bfloat16, remat=True))
    assert jnp.isfinite(rough).all()
    assert 0 < jnp.linalg.norm(rough - exact) < 0.1 * jnp.linalg.norm(exact)  # 2^-8 a rounding


@pytest.mark.slow
def test_vmap_over_examples_and_remat_keep_values_and_gradients():
    x, time = jax.random.normal(jax.random.key(2), (3, 4, 4, 1)), jnp.array([1.0, 50.0, 999.0])
    params, net = random_params(SMALL, 4, 4, 1), SMALL.copy(remat=True)

    def direct(params):
        return (SMALL.apply(params, x, time) ** 2).sum()

    def mapped(params):
        return (jax.vmap(lambda x, t: net.apply(params, x[None], t[None])[0])(x, time) ** 2).sum()

    (value, one), (other, two) = (jax.jit(jax.value_and_grad(f))(params) for f in (direct, mapped))
    np.testing.assert_allclose(value, other, rtol=1e-4)
    one, two = ravel_pytree(one)[0], ravel_pytree(two)[0]
    assert jnp.linalg.norm(one - two) < 1e-4 * jnp.linalg.norm(one)


@pytest.mark.slow
def test_dropout_with_a_key_per_example_belongs_to_the_example():
    net = TOKENS.copy(dropout=0.5)
    x, time = jax.random.normal(jax.random.key(0), (4, 6, 3)), jnp.arange(4.0)
    params = random_params(TOKENS, 6, 3)
    keys = jax.random.split(jax.random.key(2), 4)
    whole = APPLY(net, params, x, time, None, keys)
    np.testing.assert_allclose(APPLY(net, params, x[2:], time[2:], None, keys[2:]), whole[2:], rtol=1e-4, atol=1e-4)
    assert jnp.abs(APPLY(net, params, x, time, None, keys[::-1]) - whole).max() > 1e-2
    assert jnp.abs(APPLY(net, params, x, time, None, jax.random.key(3)) - whole).max() > 1e-2
    np.testing.assert_array_equal(APPLY(net, params, x, time), APPLY(TOKENS, params, x, time))


@pytest.mark.parametrize(
    "change, shape, label, words",
    [
        ({}, (2, 4, 6), None, r"\(2, 4, 6\).*batch, height, width, channels"),
        ({}, (2, 4, 5, 1), None, "4x5.*patches of 2x2.*patch_size"),
        (dict(patch_size=0), (2, 4, 4, 1), None, "patches of 0x0"),
        (dict(depth=0), (2, 4, 4, 1), None, "depth is 0"),
        (dict(heads=3), (2, 4, 4, 1), None, "width 8.*heads 3"),
        (dict(width=6), (2, 4, 4, 1), None, "width 6.*2 axes.*multiple of 4"),
        (dict(mlp_ratio=0.1), (2, 4, 4, 1), None, "mlp_ratio is 0.1.*1/8"),
        ({}, (3, 4, 4, 1), None, r"time has shape \(2,\)"),
        (dict(num_classes=None), (2, 4, 4, 1), jnp.zeros(2, int), "num_classes"),
        ({}, (2, 4, 4, 1), jnp.zeros(1, int), r"label has shape \(1,\)"),
        ({}, (2, 4, 4, 1), jnp.zeros(2), "label is float32"),
        ({}, (2, 4, 4, 1), np.array([0, 4]), "label 4 is none of the num_classes=3"),
    ],
)
def test_bad_input_is_named(change, shape, label, words):
    with pytest.raises(InputError, match=words) as raised:
        SMALL.copy(**change).init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(2), label)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "shape, positions, words",
    [
        ((2, 6), None, "batch, length, features"),
        ((2, 6, 3), (5, 1), r"\(5, 1\).*each of 6 tokens"),
        ((2, 6, 3), (6,), r"\(6,\).*length, axes"),
        ((2, 6, 3), (6, 3), "width 8.*3 axes.*multiple of 6"),
    ],
)
def test_bad_tokens_are_named(shape, positions, words):
    positions = None if positions is None else jnp.zeros(positions)
    with pytest.raises(InputError, match=words):
        TOKENS.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(2), positions=positions)
