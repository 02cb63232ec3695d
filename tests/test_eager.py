"""`eager.once`: the result is that of the plain call, and a program of the same text is compiled once."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import eager


def power(base, num):
    """base^num by a scan whose body is new at each call, and which closes over `base`."""
    return lambda x: jax.lax.scan(lambda carry, _: (carry * base, None), x, None, length=num)[0]


def test_closed_over_arrays_are_arguments_of_one_program(compilations):
    bases = [jnp.array([2.0, 3.0]) + i for i in range(4)]
    one = jnp.ones(2)
    np.testing.assert_allclose(eager.once(power(bases[0], 3), one), bases[0] ** 3)
    compilations.clear()
    for base in bases[1:]:
        np.testing.assert_allclose(eager.once(power(base, 3), one), np.asarray(base) ** 3, rtol=1e-6)
    assert not compilations
    eager.once(power(bases[0], 4), one)  # another program is compiled: the listener does hear compilations
    assert compilations


def test_a_variable_that_changes_under_a_closure_is_seen():
    scale = jnp.array(2.0)

    def program(x):
        return scale * x

    assert eager.once(program, jnp.array(1.0)) == 2.0
    scale = jnp.array(5.0)
    assert eager.once(program, jnp.array(1.0)) == 5.0


def test_transformations_see_through_it():
    def f(base):
        return eager.once(power(base, 3), 2.0)  # the tracer is closed over, the argument is concrete

    np.testing.assert_allclose(jax.grad(f)(1.5), 2 * 3 * 1.5**2)
    np.testing.assert_allclose(jax.vmap(f)(jnp.arange(3.0)), 2 * np.arange(3.0) ** 3)
    np.testing.assert_allclose(jax.jit(f)(1.5), 2 * 1.5**3)
    np.testing.assert_allclose(jax.grad(lambda x: eager.once(power(2.0, 3), x))(1.0), 8.0)


def test_pytrees_and_keys_pass_through():
    key = jax.random.key(0)
    out = eager.once(lambda key, tree: {"draw": jax.random.normal(key), "none": None, "tree": tree}, key, (1.0, [2]))
    np.testing.assert_allclose(out["draw"], jax.random.normal(key), rtol=1e-6)
    assert out["none"] is None
    assert out["tree"] == (1.0, [2])


def test_callbacks_are_not_taken_for_one_another():
    def calling(function):
        return lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((), jnp.float32), x)

    assert eager.once(calling(lambda x: np.float32(2 * x)), jnp.float32(3.0)) == 6.0
    assert eager.once(calling(lambda x: np.float32(5 * x)), jnp.float32(3.0)) == 15.0


def test_few_programs_are_kept(monkeypatch):
    monkeypatch.setattr(eager, "MOST", 2)
    monkeypatch.setattr(eager, "_programs", type(eager._programs)())
    for num in range(1, 5):
        assert eager.once(power(2.0, num), 1.0) == 2.0**num
    assert len(eager._programs) == 2
