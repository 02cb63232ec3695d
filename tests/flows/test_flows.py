"""Every flow against the autodiff Jacobian and its own inverse; laws by quadrature; the border of the invertible."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit

from diffjax import flows, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.nets.masked import MADE

DIM = 3
W, U = jax.random.normal(jax.random.key(0), (2, 5, DIM))


def planar_of(*dots):
    """Parameters of five, one for each example, whose wᵀu are `dots`: on either side of 0, and of -1."""
    u = U + ((np.array(dots) - (U * W).sum(-1)) / (W * W).sum(-1))[:, None] * W
    return u, W, jnp.array([0.3, -0.5, 0.0, 1.0, 0.2])


def conditioner(scale, outputs):
    """Without structure: sin(x A + 0.2) B + 0.1."""
    first, second = (jax.random.normal(jax.random.key(i), (DIM, n * DIM)) for i, n in ((0, 1), (1, outputs)))
    return lambda x: jnp.split(scale * jnp.sin(scale * x @ first + 0.2) @ second + 0.1, outputs, -1)


MADE_PARAMS = jax.jit(MADE((8,)).init)(jax.random.key(0), jnp.zeros((5, DIM)), jnp.zeros((5, 2)))


def made(scale, context):
    def moved(leaf):
        return scale * jax.random.normal(jax.random.key(leaf.size), leaf.shape)

    params = jax.tree.map(moved, MADE_PARAMS)
    return lambda x: MADE((8,)).apply(params, x, context)


def autoregressive(form):
    return lambda scale, context: flows.autoregressive(made(scale, context), form)


def coupling(form):
    return lambda mask, scale: flows.affine_coupling(mask, conditioner(scale, 2), form)


def additive(mask, scale):
    return flows.additive_coupling(mask, lambda x: conditioner(scale, 1)(x)[0])


def three(u, w, b):
    return flows.chain([flows.planar(u, w, b), flows.reverse, flows.radial(w, b, u[..., 0])])


MASKS = [make(DIM, parity) for make in (lambda n, i: flows.checkerboard((n,), i), flows.halves) for parity in (0, 1)]
CONTEXTS = [jnp.zeros((5, 2)), jax.random.normal(jax.random.key(7), (5, 2))]
STACK = jax.random.normal(jax.random.key(3), (4, 3, DIM))
# A function to make it, and parameters; all of a kind are compiled once.
CASES = {
    "affine": (flows.affine, [(jnp.array([1.0, -2.0, 0.0]), jnp.array([0.1, 1.0, 20.0]))]),
    "reverse": (lambda: flows.reverse, [()]),
    "planar": (
        flows.planar,
        [
            planar_of(-3.0, -1.0, -0.5, -0.1, 0.0),
            planar_of(0.1, 0.5, 1.0, 3.0, 20.0),
            (jnp.ones((5, DIM)), jnp.full((5, DIM), 1e-8), jnp.full(5, 0.5)),  # w almost 0
        ],
    ),
    "radial": (
        flows.radial,
        [
            (
                W,
                jnp.array([1.0, -1.0, 0.3, 9.0, 2.0]),
                jnp.array([-1.0, 1.0, 0.3, 2.0, 9.0]),
            ),  # β of either sign, and 0
            (W, jnp.array([-5.0, 3.0, 0.0, -2.0, 4.0]), jnp.array([0.0, -5.0, 4.0, -4.0, 3.0])),
        ],
    ),
    "additive": (additive, [(mask, 1.0) for mask in MASKS]),
    "affine coupling": (coupling(None), list(zip(MASKS, (0.1, 0.5, 1.0, 2.0), strict=True))),
    "gated coupling": (coupling(flows.gated(0.0)), [(mask, 1.0) for mask in MASKS[1:3]]),
    "iaf": (autoregressive(None), [(scale, context) for scale in (0.2, 0.7) for context in CONTEXTS]),
    "maf": (
        lambda *params: flows.invert(autoregressive(flows.bounded(1.0))(*params)),
        [(0.5, context) for context in CONTEXTS],
    ),
    "chain": (three, [planar_of(-3.0, -0.5, 0.0, 0.5, 3.0)]),
    "stacked": (
        lambda *params: flows.stacked(lambda p: flows.planar(*p), params),
        [(STACK[:, 0], STACK[:, 1], STACK[:, 2, 0])],
    ),
}


def jacobian_log_det(move, x):
    """Of a map of (n, dim), examples of which do not touch one another."""
    n, dim = x.shape
    whole = jax.jacfwd(lambda x: move(x)[0])(x)
    return jnp.linalg.slogdet(whole[jnp.arange(n), :, jnp.arange(n), :].reshape(n, dim, dim))[1]


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", CASES)
def test_a_flow_has_the_jacobian_s_determinant_and_an_inverse(name):
    make, every = CASES[name]
    x = 1.5 * jax.random.normal(jax.random.key(9), (5, DIM))

    @jax.jit
    def everything(params, x):
        flow = make(*params)
        y, log_det = flow.forward_and_log_det(x)
        back, inverse_log_det = flow.inverse_and_log_det(y)
        other, _ = flow.inverse_and_log_det(x)
        again, _ = flow.forward_and_log_det(other)
        return y, log_det, back, inverse_log_det, again, jacobian_log_det(flow.forward_and_log_det, x)

    for params in every:
        y, log_det, back, inverse_log_det, again, exact = everything(params, x)
        assert log_det.shape == (5,)
        scale = 1 + float(jnp.abs(y).max())
        np.testing.assert_allclose(log_det, exact, atol=1e-5)
        np.testing.assert_allclose(back, x, atol=1e-5 * scale)
        np.testing.assert_allclose(again, x, atol=1e-5 * scale)
        np.testing.assert_allclose(inverse_log_det, -log_det, atol=3e-5 * scale)  # it is of `back`, which was rounded
    if name not in ("affine", "reverse", "additive"):
        assert np.ptp(everything(every[0], x)[1]) > 1e-2  # not a flow that does nothing


def test_scales_are_those_of_the_papers():
    m, s = np.random.default_rng(0).normal(size=(2, 50))
    gate = expit(s + 1.0)
    shift, log_scale = flows.gated(1.0)(jnp.asarray(m), jnp.asarray(s))
    np.testing.assert_allclose(shift, (1 - gate) * m, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_scale), gate, rtol=1e-5)
    shift, log_scale = flows.bounded(0.5)(jnp.asarray(m), jnp.asarray(10 * s))
    np.testing.assert_allclose(shift, m, rtol=1e-6)
    assert (np.abs(log_scale) <= 0.5).all() and np.abs(log_scale).max() > 0.499
    np.testing.assert_allclose(flows.bounded(0.5)(0.0, 1e-3)[1], 1e-3, rtol=1e-4)


def test_logit_has_the_jacobian_s_determinant_and_an_inverse():
    flow = flows.logit(0.05)
    x = jax.random.uniform(jax.random.key(0), (5, DIM)).at[0].set(jnp.array([0.0, 1.0, 0.5]))
    y, log_det = jax.jit(flow.forward_and_log_det)(x)
    np.testing.assert_allclose(y[0], [np.log(0.05 / 0.95), np.log(0.95 / 0.05), 0.0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(log_det, jax.jit(lambda x: jacobian_log_det(flow.forward_and_log_det, x))(x), rtol=1e-5)
    back, inverse = flow.inverse_and_log_det(y)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(inverse, -log_det)


@pytest.mark.parametrize("kind", ["planar", "radial"])
@pytest.mark.parametrize("x64", [False, True])
def test_the_border_of_what_is_invertible_is_not_crossed(kind, x64):
    """Along a line through its middle a flow at the border still grows, and there is a way back to every y.

    In single precision an x at the border cannot be had back, because there the flow is flat; but one with the same y.
    """
    with jax.enable_x64(x64):
        e, across = jnp.array([0.6, 0.8]), jnp.array([-0.8, 0.6])
        half = np.geomspace(1e-3, 40, 60)
        line = np.concatenate([-half[::-1], half])
        x = jnp.asarray(line)[:, None] * e

        @jax.jit
        def there_and_back(first, second):
            if kind == "planar":
                flow = flows.planar(first * e + second * across, e, jnp.array(0.0))
            else:
                flow = flows.radial(jnp.zeros(2), first, second)
            y, log_det = flow.forward_and_log_det(x)
            back, inverse_log_det = flow.inverse_and_log_det(y)
            return y, log_det, back, inverse_log_det, flow.forward_and_log_det(back)[0]

        for first, second in itertools.product((-30.0, 30.0), (-30.0, 0.0, 30.0)):
            y, log_det, back, inverse_log_det, again = there_and_back(jnp.array(first), jnp.array(second))
            assert np.isfinite(log_det).all() and np.isfinite(inverse_log_det).all()
            np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-13 if x64 else 1e-5)
            if x64:
                assert (np.diff(y @ e) > 0).all()
                np.testing.assert_allclose(back, x, rtol=1e-6)
                np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-6)


def test_the_inverse_of_a_planar_flow_has_the_derivatives_of_an_inverse():
    """∂x/∂θ = -(∂y/∂x)⁻¹ ∂y/∂θ at x = f⁻¹(y), by the implicit function theorem; and for reverse mode too."""
    keys = jax.random.split(jax.random.key(0), 4)
    theta = (*(jax.random.normal(k, (DIM,)) for k in keys[:2]), jnp.array(0.4))
    y = jax.random.normal(keys[2], (DIM,))

    def inverse(theta):
        return flows.planar(*theta).inverse_and_log_det(y)[0]

    def forward(theta, x):
        return flows.planar(*theta).forward_and_log_det(x)[0]

    @jax.jit
    def both(theta):
        x = inverse(theta)
        of_theta, of_x = jax.jacfwd(forward, argnums=(0, 1))(theta, x)
        expected = jax.tree.map(lambda part: -jnp.linalg.solve(of_x, part.reshape(DIM, -1)), of_theta)
        return jax.jacrev(inverse)(theta), expected

    for found, expected in zip(*both(theta), strict=True):
        np.testing.assert_allclose(found.reshape(DIM, -1), expected, atol=2e-6)


LAWS = {
    "planar": lambda: several_planar(),
    "radial": lambda: flows.radial(jnp.array([0.5, -0.5]), jnp.array(0.2), jnp.array(2.0)),
    "coupling": lambda: flows.affine_coupling(
        jnp.array([True, False]), lambda x: (jnp.sin(x[..., ::-1]), x[..., ::-1])
    ),
}


def several_planar():
    w = jax.random.normal(jax.random.key(5), (3, 3, 2))
    return flows.stacked(lambda p: flows.planar(*p), (w[:, 0], w[:, 1], w[:, 2, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_a_law_integrates_to_one_and_scores_its_own_samples(name):
    law = flows.Transformed(Normal(jnp.array([0.3, -0.2]), jnp.array([1.0, 0.5])), LAWS[name]())
    axis = np.linspace(-15, 15, 301)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
    mass = np.exp(np.asarray(jax.jit(law.log_prob)(grid), float)).sum() * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass, 1, atol=1e-3)

    batch = Normal(jnp.zeros((50, 2)), jnp.ones((50, 2)))
    law = law._replace(base=batch)
    x, log_prob = jax.jit(law.sample_and_log_prob)(jax.random.key(0))
    np.testing.assert_allclose(log_prob, jax.jit(law.log_prob)(x), atol=2e-5)
    np.testing.assert_allclose(law.sample(jax.random.key(0)), x, rtol=1e-5)


def test_a_posterior_with_parameters_from_an_encoder_is_each_example_s_own():
    """As `vi` takes it: the log-weights of a batch are those of its examples, with planar layers of their own."""
    num, layers = 4, 2
    keys = jax.random.split(jax.random.key(0), 4)
    mean, u, w, b = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(num, DIM), (layers, num, DIM), (layers, num, DIM), (layers, num)], strict=True)
    )

    def law(mean, u, w, b):
        layers = flows.stacked(lambda p: flows.planar(*p), (u, w, b))
        return flows.Transformed(Normal(mean, jnp.full(mean.shape, 0.25)), layers)

    def log_joint(x, z):
        return -(z**2).sum(-1) - z[..., 0]

    @jax.jit
    def both(key):
        z, log_w = vi.markov_chain(key, None, log_joint, law(mean, u, w, b), (), ())
        own = jax.vmap(lambda z, *params: law(*params).log_prob(z), (0, 0, 1, 1, 1))(z, mean, u, w, b)
        return log_w, log_joint(None, z) - own

    np.testing.assert_allclose(*both(jax.random.key(1)), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: flows.affine(jnp.zeros(2), jnp.array([1.0, 0.0])), "scale must be positive"),
        (lambda: flows.affine(jnp.zeros(2), jnp.array([1.0, -1.0])), "scale must be positive"),
        (lambda: flows.affine(jnp.zeros(2), jnp.array([1.0, np.nan])), "scale must be positive"),
        (lambda: flows.bounded(0.0), "limit"),
        (lambda: flows.logit(0.5), "margin"),
        (lambda: flows.planar(jnp.ones(2), jnp.zeros(2), jnp.array(0.0)), "w is 0"),
        (lambda: flows.planar(jnp.ones(2), jnp.ones(3), jnp.array(0.0)), "u, w and b"),
        (lambda: flows.planar(jnp.ones((4, 2)), jnp.ones((4, 2)), jnp.array(0.0)), "u, w and b"),
        (lambda: flows.radial(jnp.ones(2), jnp.ones(2), jnp.ones(2)), "centre"),
        (lambda: flows.planar(U[0], W[0], jnp.array(0.0)).forward_and_log_det(jnp.ones(2)), "3 entries.*(2,)"),
        (
            lambda: flows.radial(W[0], jnp.array(0.0), jnp.array(0.0)).inverse_and_log_det(jnp.ones(2)),
            "3 entries.*(2,)",
        ),
        (lambda: flows.checkerboard((1,), 0), "at least 2"),
        (lambda: flows.halves(1, 0), "at least 2"),
        (lambda: flows.halves(4, 2), "parity"),
        (lambda: flows.additive_coupling(jnp.ones(3, bool), jnp.sin), "mask"),
        (lambda: flows.affine_coupling(jnp.zeros(3, bool), conditioner(1.0, 2)), "mask"),
        (lambda: flows.additive_coupling(MASKS[0], jnp.sin).forward_and_log_det(jnp.ones(2)), "mask"),
        (lambda: flows.additive_coupling(MASKS[0], lambda x: x[:1]).forward_and_log_det(jnp.ones(3)), "cond"),
        (lambda: flows.autoregressive(lambda x: (x, x[:1])).forward_and_log_det(jnp.ones(3)), "conditioner"),
        (lambda: flows.chain([]), "at least one"),
    ],
)
def test_what_cannot_be_a_flow_is_named(make, says):
    with pytest.raises(InputError, match=says):
        make()


# Shapes, types and programs --------------------------------------------------------------------------------------


class Vectors(NamedTuple):
    """A base whose density is of whole vectors."""

    law: Normal

    def sample(self, key):
        return self.law.sample(key)

    def log_prob(self, x):
        return self.law.log_prob(x).sum(-1)


@pytest.mark.slow
def test_laws_and_vectors_with_different_batch_axes():
    """One y under five laws, five under one, grids: y = shift + scale x of a Normal x is a Normal that scipy knows."""
    rng = np.random.default_rng(0)
    for base_batch, flow_batch, batch in itertools.product(
        [(), (5,), (3, 1)], [(), (5,)], [(), (5,), (3, 5), (4, 1, 1)]
    ):
        mean, shift, y = (rng.normal(size=(*b, DIM)) for b in (base_batch, flow_batch, batch))
        variance, scale = (rng.uniform(0.5, 2, size=(*b, DIM)) for b in (base_batch, flow_batch))
        want = scipy.stats.norm(shift + scale * mean, scale * variance**0.5).logpdf(y).sum(-1)
        base = Normal(jnp.asarray(mean), jnp.asarray(variance))
        flow = flows.affine(jnp.asarray(shift), jnp.asarray(scale))
        for start in (base, Vectors(base), flows.Transformed(base, flows.reverse)):
            layers = [flows.reverse, flow] if isinstance(start, flows.Transformed) else [flow]
            got = flows.Transformed(start, flows.chain(layers)).log_prob(jnp.asarray(y))
            assert got.shape == np.broadcast_shapes(base_batch, flow_batch, batch)
            np.testing.assert_allclose(got, want, rtol=1e-4)


def test_as_many_laws_as_entries_are_not_taken_for_entries():
    """A batch of dim laws over whole vectors: its log_prob has a last axis of dim, which is not one of entries."""
    mean = np.random.default_rng(1).normal(size=(DIM, DIM))
    y = np.ones(DIM)
    for base in (Normal(jnp.asarray(mean), jnp.ones(DIM)), Vectors(Normal(jnp.asarray(mean), jnp.ones(DIM)))):
        got = flows.Transformed(base, flows.reverse).log_prob(jnp.asarray(y))
        np.testing.assert_allclose(got, scipy.stats.norm(mean, 1).logpdf(y).sum(-1), rtol=1e-5)


def test_one_vector_through_a_stack_with_parameters_of_a_batch():
    u, w, b = STACK[:, None, 0] * jnp.array([[1.0], [0.5]]), STACK[:, None, 1] * jnp.ones((2, 1)), STACK[:, 2, :2]
    y = jnp.array([0.4, -0.2, 1.0])

    @jax.jit
    def both(u, w, b):
        def move(u, w, b):
            return flows.stacked(lambda p: flows.planar(*p), (u, w, b)).inverse_and_log_det(y)

        return move(u, w, b), jax.vmap(move, 1)(u, w, b)

    jax.tree.map(lambda one, each: np.testing.assert_allclose(one, each, atol=1e-6), *both(u, w, b))


@pytest.mark.fast(1)
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_a_flow_keeps_the_type_of_its_vectors(promotion):
    """float32 under x64, also by a conditioner that answers in float64; 16 bits count as float32."""
    half, single, double = jnp.bfloat16, jnp.float32, jnp.float64
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        for of_params, of_x, wanted in [(single, single, single), (half, half, single), (single, half, single)]:
            v, s = jnp.ones((2, DIM), of_params), jnp.ones(2, of_params)
            layers = {
                "planar": flows.planar(v, v, s),
                "radial": flows.radial(v, s, s),
                "affine": flows.affine(v, v),
                "additive": flows.additive_coupling(MASKS[0], lambda x: x.astype(double)),
                "coupling": flows.affine_coupling(MASKS[0], lambda x: (x.astype(double), x)),
                "autoregressive": flows.autoregressive(lambda x: (0 * x.astype(double), 0 * x)),
                "stacked": flows.stacked(lambda p: flows.planar(*p), (v[None], v[None], s[None])),
                "logit": flows.logit(0.1),
                "reverse": flows.reverse,
            }
            x = jnp.full((2, DIM), 0.5, of_x)
            for name, flow in layers.items():
                for move in flow:
                    assert {part.dtype for part in jax.eval_shape(move, x)} == {jnp.dtype(wanted)}, (name, of_x)
            law = flows.Transformed(Normal(v, v), flows.chain(list(layers.values())[:3]))
            drawn = jax.eval_shape(law.sample_and_log_prob, jax.random.key(0))
            assert {part.dtype for part in drawn} == {jnp.dtype(wanted)}


def test_a_flow_made_anew_is_not_compiled_anew(compilations):
    """Called outside `jit`, with other parameters each time: the loops of inverses and stacks are there already."""

    def everything(i):
        u, w, b = (part * (1 + 0.1 * i) for part in planar_of(-0.5, 0.0, 0.5, 1.0, 2.0))
        params = jax.tree.map(lambda leaf: leaf + 0.1 * i, MADE_PARAMS)
        made = flows.autoregressive(lambda x: MADE((8,)).apply(params, x, CONTEXTS[0]))
        stack = flows.stacked(lambda p: flows.planar(*p), (STACK[:, 0] + i, STACK[:, 1], STACK[:, 2, 0]))
        x = W + i
        return [
            flows.planar(u, w, b).inverse_and_log_det(x),
            made.inverse_and_log_det(x),
            stack.forward_and_log_det(x),
            stack.inverse_and_log_det(x),
            flows.Transformed(Normal(x, jnp.ones((5, DIM))), stack).log_prob(x),
        ]

    everything(0.0)
    compilations.clear()
    everything(1.0)
    assert not compilations
