"""MADE: what depends on what, by its Jacobian."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets.masked import MADE, MaskedDense, hidden_degrees


def jacobians(dim, context):
    """∂out/∂x (out, dim, dim), ∂out/∂context (out, dim, context), none of whose possible entries is 0 by chance."""
    net = MADE((12, 17), out=2, zero=False)
    h = None if context is None else jnp.ones(context)
    x = jax.random.normal(jax.random.key(0), (dim,))

    @jax.jit
    def both(key):
        params = net.init(key, x, h)
        wrong = jax.jacfwd(lambda x: net.apply(params, x, h))(x)
        return wrong, jax.jacfwd(lambda h: net.apply(params, x, h))(h) if context else jnp.zeros((2, dim, 0))

    return (np.asarray(part) for part in both(jax.random.key(1)))


@pytest.mark.fast(1)
@pytest.mark.parametrize(("dim", "context"), [(1, 3), (2, None), (5, None), (5, 3)])
def test_an_output_depends_on_all_inputs_before_it_and_on_no_other(dim, context):
    of_x, of_context = jacobians(dim, context)
    before = np.tril(np.ones((dim, dim), bool), -1)
    assert (of_x[:, ~before] == 0).all()
    assert (of_x[:, before] != 0).all()
    assert (of_context != 0).all()  # of the first output too, which sees nothing else


@pytest.mark.slow
def test_a_batch_is_its_examples():
    net = MADE((7,), out=3, zero=False)
    x, h = jax.random.normal(jax.random.key(0), (2, 4, 3)), jax.random.normal(jax.random.key(1), (2, 4, 5))
    out, params = jax.jit(net.init_with_output)(jax.random.key(2), x, h)
    assert out.shape == (3, 2, 4, 3)
    np.testing.assert_allclose(out[:, 1, 2], jax.jit(net.apply)(params, x[1, 2], h[1, 2]), atol=1e-6)
    assert not jax.jit(MADE((7,)).init_with_output)(jax.random.key(1), x)[0].any()


def connections(dim, features, context):
    """Which of x_1..x_dim (and, at 0, the context) a path of masked weights leads from to an output, (dim, dim + 1)."""
    masks = []

    def note(call, args, kwargs, at):
        if isinstance(at.module, MaskedDense) and at.method_name == "__call__":
            masks.append(args[1])
        return call(*args, **kwargs)

    def init(x, h):
        with nn.intercept_methods(note):
            return MADE(features, out=1).init(jax.random.key(0), x, h)

    jax.eval_shape(init, jnp.ones(dim), jnp.ones(2) if context else None)
    of_context = np.ones((1, features[0]), bool) & context  # it enters the first hidden layer
    paths = np.concatenate([of_context, masks[0]])
    for mask in masks[1:]:
        paths = paths @ mask  # of booleans
    return paths.T


@pytest.mark.slow
@pytest.mark.parametrize("context", [False, True])
def test_of_few_units_as_many_inputs_as_possible_are_used(context):
    """All pairs where the widths allow it; else as many as any choice of degrees would connect, by trying all."""
    for dim in range(1, 8):
        outputs, inputs = np.arange(1, dim + 1), np.arange(0 if context else 1, dim + 1)
        for narrowest in range(1, dim + 2):
            for features in ((narrowest,), (narrowest + 2, narrowest), (narrowest, 9)):
                found = connections(dim, features, context)[:, 0 if context else 1 :]
                assert not found[outputs[:, None] <= inputs].any()
                most = max(
                    sum(any(j <= m < i for m in chosen) for i in outputs for j in inputs)
                    for chosen in itertools.combinations(range(dim), min(narrowest, dim))
                )
                assert found.sum() == most, (dim, features, found)
                if narrowest >= (dim if context else dim - 1):
                    assert found.sum() == (outputs[:, None] > inputs).sum()


def test_four_units_for_eight_inputs():
    """25 of the 28 pairs, by derivatives, and of the inputs all that an output may see."""
    net, x = MADE((4,), out=1, zero=False), jax.random.normal(jax.random.key(0), (8,))
    of_x = jax.jit(jax.jacfwd(lambda x, key: net.init_with_output(key, x)[0][0]))(x, jax.random.key(1))
    assert (of_x != 0).sum() == 25
    assert (of_x != 0).any(0).tolist() == [True] * 7 + [False]


def test_enough_units_have_the_degrees_of_the_paper_in_turn():
    """Trained parameters keep their meaning: degrees 1..dim - 1 (0..dim - 1 with a context), over and over."""
    assert hidden_degrees(5, (9, 4), False).tolist() == [1, 2, 3, 4]
    assert hidden_degrees(5, (5, 70), True).tolist() == [0, 1, 2, 3, 4]
    assert hidden_degrees(1, (3,), False).tolist() == [0]
