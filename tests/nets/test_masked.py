"""MADE: what depends on what, by its Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets.masked import MADE


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


@pytest.mark.parametrize(("dim", "context"), [(1, 3), (2, None), (5, None), (5, 3)])
def test_an_output_depends_on_all_inputs_before_it_and_on_no_other(dim, context):
    of_x, of_context = jacobians(dim, context)
    before = np.tril(np.ones((dim, dim), bool), -1)
    assert (of_x[:, ~before] == 0).all()
    assert (of_x[:, before] != 0).all()
    assert (of_context != 0).all()  # of the first output too, which sees nothing else


def test_a_batch_is_its_examples():
    net = MADE((7,), out=3, zero=False)
    x, h = jax.random.normal(jax.random.key(0), (2, 4, 3)), jax.random.normal(jax.random.key(1), (2, 4, 5))
    out, params = jax.jit(net.init_with_output)(jax.random.key(2), x, h)
    assert out.shape == (3, 2, 4, 3)
    np.testing.assert_allclose(out[:, 1, 2], jax.jit(net.apply)(params, x[1, 2], h[1, 2]), atol=1e-6)
    assert not jax.jit(MADE((7,)).init_with_output)(jax.random.key(1), x)[0].any()
