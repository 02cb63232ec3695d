"""The multi-scale network against loops over pixels, and the symmetries and reach of its two paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.nets.multiscale import MultiScale, MultiScaleConv

APPLY = jax.jit(lambda net, params, *args: net.apply(params, *args), static_argnums=0)
SMALL = {"features": 3, "num_scales": 2, "dense_features": 7, "pixel_features": 6, "num_bumps": 5}


def random_params(net, *args):
    """Parameters without the zeros of the initialisation, which would hide the whole network."""
    like = jax.eval_shape(net.init, jax.random.key(0), *args)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), like)


def loop_conv(x, params):
    """Every output pixel of one image by itself: at every scale, the window of block averages round its own block."""
    height, width, _ = x.shape
    out = np.zeros((height, width, len(params["scale_0"]["bias"]))) + params["scale_0"]["bias"]
    for k in range(len(params)):
        kernel, size = params[f"scale_{k}"]["kernel"], 2**k
        reach = kernel.shape[0] // 2
        for i, j in np.ndindex(height, width):
            for p, q in np.ndindex(kernel.shape[:2]):
                top, left = size * (i // size + p - reach), size * (j // size + q - reach)
                if 0 <= top < height and 0 <= left < width:
                    out[i, j] += x[top : top + size, left : left + size].mean((0, 1)) @ kernel[p, q]
    return out


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_layer_is_the_sum_of_its_scales(kernel_size):
    net = MultiScaleConv(4, 3, kernel_size)
    x = np.random.default_rng(0).standard_normal((2, 12, 8, 2))
    params = random_params(net, jnp.asarray(x))
    want = [loop_conv(image, jax.tree.map(np.float64, params["params"])) for image in x]
    np.testing.assert_allclose(APPLY(net, params, jnp.asarray(x)), want, atol=1e-4)


@pytest.mark.fast(1)
@pytest.mark.parametrize("leave_out", ["nothing", "num_layers", "dense_layers", "pixel_layers"])
def test_the_network_is_the_formula(leave_out):
    net = MultiScale(2, **SMALL, **({} if leave_out == "nothing" else {leave_out: 0}))
    x, t = np.random.default_rng(0).standard_normal((3, 4, 6, 2)), np.array([0.0, 0.37, 1.0])
    params = random_params(net, jnp.asarray(x), jnp.asarray(t))
    p = jax.tree.map(np.float64, params["params"])

    def dense(h, name):
        return np.tanh(h @ p[name]["kernel"] + p[name]["bias"])

    g = np.exp(-0.5 * ((t[:, None] - np.linspace(0, 1, 5)) * 4) ** 2)
    g /= g.sum(1, keepdims=True)
    want = []
    for image, weights in zip(x, g, strict=True):
        paths = []
        if leave_out != "num_layers":
            h = image
            for i in range(2):
                h = np.log1p(np.exp(loop_conv(h, p[f"conv_{i}"])))
            paths.append(h)
        if leave_out != "dense_layers":
            paths.append(dense(dense(image.ravel(), "dense_0"), "dense_1").reshape(4, 6, 2))
        h = np.concatenate(paths, -1)
        if leave_out != "pixel_layers":
            h = dense(dense(h, "pixel_0"), "pixel_1")
        read_outs = [h @ p["read_out"][j] + p["read_out_bias"][j] for j in range(5)]
        want.append(np.tensordot(weights, read_outs, 1))
    np.testing.assert_allclose(APPLY(net, params, jnp.asarray(x), jnp.asarray(t)), want, atol=2e-5)


@pytest.mark.slow
def test_starts_as_zero_and_learns_from_there():
    net = MultiScale(2, **SMALL, num_layers=1, dense_layers=1, pixel_layers=1)
    x, t = 100 * jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.array([0.0, 0.4, 1.0])
    params = jax.jit(net.init)(jax.random.key(1), x, t)
    assert jnp.all(APPLY(net, params, x, t) == 0)

    @jax.jit
    def descend(params):
        grad = jax.grad(lambda p: ((net.apply(p, x / 100, t) - x / 100) ** 2).mean())(params)
        return jax.tree.map(lambda a, b: a - 0.1 * b, params, grad)

    # The first step moves the read-out alone, the second everything.
    states = [params, descend(params), descend(descend(params))]
    names = set(params["params"])
    for (before, after), want in zip(itertools.pairwise(states), ({"read_out", "read_out_bias"}, names), strict=True):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before["params"], after["params"])
        assert {name for name in names if not all(jax.tree.leaves(same[name]))} == want


def test_convolutional_path_moves_with_the_image():
    net = MultiScale(2, features=4, dense_layers=0)
    x = jax.random.normal(jax.random.key(0), (1, 48, 48, 1))
    t = jnp.array([0.3])
    params = random_params(net, x, t)
    out, margin = APPLY(net, params, x, t), 16  # two layers of a window that reaches at most 7 pixels, and the shift
    inner = np.s_[:, margin:-margin, margin:-margin]
    scale = float(out[inner].std())
    for rows, columns in ((4, 0), (0, -4), (-4, 4)):
        moved = APPLY(net, params, jnp.roll(x, (rows, columns), (1, 2)), t)
        np.testing.assert_allclose(moved[inner], jnp.roll(out, (rows, columns), (1, 2))[inner], atol=1e-5)
    # By less than a block of the coarsest scale it does not: the test sees a difference where there is one.
    moved = APPLY(net, params, jnp.roll(x, 1, 1), t)
    assert float(jnp.abs(moved[inner] - jnp.roll(out, 1, 1)[inner]).max()) > 0.1 * scale


@pytest.mark.slow
@pytest.mark.parametrize("num_layers, pixel", [(1, (13, 9)), (1, (0, 23)), (2, (21, 6))])
def test_reach_of_the_paths(num_layers, pixel):
    x, t = jax.random.normal(jax.random.key(0), (2, 24, 24, 1)), jnp.array([0.3, 0.7])

    def seen(net):
        """Which pixels of which images one output depends on."""
        params = random_params(net, x, t)
        grad = jax.jit(jax.grad(lambda x: net.apply(params, x, t)[0, pixel[0], pixel[1]].sum()))(x)
        return np.asarray(jnp.abs(grad).sum(-1) > 0)

    want = np.zeros((2, 24, 24), bool)
    want[(0, *pixel)] = True
    for _ in range(num_layers):
        # A pixel sees at every scale its block and the eight round it.
        for i, j in np.argwhere(want[0]):
            for size in (1, 2, 4):
                rows, columns = (slice(max(0, size * (a // size - 1)), size * (a // size + 2)) for a in (i, j))
                want[0, rows, columns] = True
    assert not want[0].all()
    np.testing.assert_array_equal(seen(MultiScale(1, num_layers=num_layers, dense_layers=0)), want)
    everything = np.array([True, False])[:, None, None] & np.ones((2, 24, 24), bool)
    for layers in (0, num_layers):
        np.testing.assert_array_equal(seen(MultiScale(1, num_layers=layers, dense_features=9)), everything)


def test_time_enters_as_a_mixture_of_bumps_alone():
    net = MultiScale(2, **SMALL)
    times = np.linspace(0, 1, 23)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    params = random_params(net, x, jnp.zeros(1))
    out = APPLY(net, params, jnp.tile(x, (23, 1, 1, 1)), jnp.asarray(times)).reshape(23, -1)
    g = np.exp(-0.5 * ((times[:, None] - np.linspace(0, 1, 5)) * 4) ** 2)
    g /= g.sum(1, keepdims=True)
    # Five times give the five coefficients of every output, and these the outputs at all other times.
    some = [0, 6, 11, 16, 22]
    coefficients = np.linalg.solve(g[some], np.float64(out)[some])
    np.testing.assert_allclose(g @ coefficients, out, atol=1e-4)
    assert coefficients.std(0).min() > 0.01  # time does enter


def test_sizes_that_do_not_fit_are_named():
    def start(net, *shape, batch=2):
        return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(batch))

    start(MultiScale(1), 2, 28, 28, 1)
    start(MultiScale(1, num_layers=0), 2, 5, 7, 1)
    with pytest.raises(InputError, match=r"30x28 .* multiples of 4"):
        start(MultiScale(1), 2, 30, 28, 1)
    with pytest.raises(InputError, match="both 0"):
        start(MultiScale(1, num_layers=0, dense_layers=0), 2, 8, 8, 1)
    with pytest.raises(InputError, match=r"x has shape \(2, 8, 8\)"):
        start(MultiScale(1), 2, 8, 8)
    with pytest.raises(InputError, match=r"t has shape \(3,\)"):
        start(MultiScale(1), 2, 8, 8, 1, batch=3)
