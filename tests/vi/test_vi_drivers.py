"""What every driver of `vi` keeps: the types that it is given, and its compiled form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import vi
from diffjax.distributions import Normal
from diffjax.errors import InputError

KEY = jax.random.key(4)
X = np.array([0.5, -1.25])  # which 16 bits hold exactly
SCALE = jnp.float32(0.75)


def normal(params):
    return Normal(params[0], jnp.exp(2.0 * params[1]))


def density(scale):
    """By a loop: outside of `jit` a new one is compiled for each closure."""
    return lambda z: jax.lax.scan(lambda total, z: (total - 0.5 * (z / scale) ** 2, None), jnp.zeros_like(z[0]), z)[0]


class Point:
    """A point, of any type, that claims to be drawn from N(0, 1)."""

    def __init__(self, x):
        self.x = x

    def sample(self, key):
        return self.x

    def log_prob(self, x):
        return -0.5 * x**2


def estimate(estimator, own):
    def drive(x, scale):
        arguments = (density(scale), normal, (x, 0.5 * x), KEY, 3, estimator, own, 0.25)
        return vi.value_and_gradient(*arguments), vi.gradient(*arguments), vi.expectation(*arguments)

    return drive


def joint(scale):
    return lambda x, z: -0.5 * jnp.sum((x - z) ** 2) + density(scale)(z)


def hamiltonian(x, scale):
    models = [vi.LinearNormal(jnp.eye(2, dtype=x.dtype), x, x) for _ in range(2)]
    params = vi.Hamiltonian(x[0] - 2, x, *models)
    return vi.hamiltonian(KEY, jnp.zeros_like(x), joint(scale), Point(x), [params, params], 2)


def markov_chain(x, scale):
    def relaxed(x, z):
        return Normal(0.5 * z, jnp.full_like(z, 0.5))

    def coordinate(x, z):
        return vi.Coordinate(z, 1, Normal(0.5 * z[0], jnp.ones_like(z[0])))

    laws = [relaxed, coordinate]
    return vi.markov_chain(KEY, jnp.zeros_like(x), joint(scale), Point(x), laws, laws)


def fit(x, scale):
    start = vi.mean_field.start({"a": x}, 0.5)
    target = density(scale)
    return vi.mean_field.fit(
        KEY, lambda z: target(z["a"]), vi.mean_field.normal, start, optax.sgd(0.1), 4, 2, "score", vi.sampled_entropy
    )


# (parameters, scale ()) -> a pytree
ESTIMATORS = {
    "score": estimate("score", vi.sampled_entropy),
    "leave one out": estimate("score_leave_one_out", vi.analytic_entropy),
    "reparameterized": estimate("reparameterized", vi.negative_kl(Normal(0.0, 2.0))),
    "landing": estimate("sticking_the_landing", vi.sampled_entropy),
}
DRIVERS = ESTIMATORS | {
    "fit": fit,
    "hamiltonian": hamiltonian,
    "markov chain": markov_chain,
}


def assert_close(got, want, dtype=None):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(b.dtype, jnp.floating):
            assert a.dtype in (b.dtype, dtype)
        coarse = a.dtype == jnp.bfloat16  # a gradient comes in the type of its parameter
        np.testing.assert_allclose(a.astype(b.dtype), b, rtol=1e-2 if coarse else 2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIVERS)
def test_types_do_not_change_the_numbers(name):
    """16 bits are float32 of the same value; float32 is itself, with jax's default at 64 bits or strict promotion."""
    drive, x = DRIVERS[name], jnp.asarray(X, jnp.float32)
    want = drive(x, SCALE)
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(want))
    assert_close(drive(jnp.asarray(X, jnp.bfloat16), SCALE), want, jnp.bfloat16 if name in ESTIMATORS else None)
    with jax.numpy_dtype_promotion("strict"):
        assert_close(drive(x, SCALE), want)
    with jax.enable_x64(True):
        assert_close(drive(x, SCALE), want)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIVERS)
def test_a_second_call_compiles_nothing(name, compilations):
    x, others = jnp.asarray(X, jnp.float32), (jnp.asarray(2 * X, jnp.float32), jnp.float32(0.9))
    first = DRIVERS[name](x, SCALE)
    DRIVERS[name](x, SCALE)  # what is computed between the drivers
    compilations.clear()
    second = DRIVERS[name](*others)
    assert not compilations
    assert all((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (first[0], second[0])), strict=True))


NUMBERS = {
    "num": lambda n: vi.gradient(jnp.sum, normal, (jnp.ones(2), jnp.ones(2)), KEY, n),
    "num_steps": lambda n: vi.mean_field.fit(
        KEY, jnp.sum, vi.mean_field.normal, vi.mean_field.start(X), optax.sgd(0.1), n, 2
    ),
    "num_leapfrog": lambda n: vi.hamiltonian(
        KEY, jnp.zeros(2), joint(1.0), Normal(jnp.zeros(2), jnp.ones(2)), vi.linear_hamiltonian(2), n
    ),
    "dim": lambda n: vi.linear_hamiltonian(n),
}


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", NUMBERS)
def test_integers_of_numpy_are_integers_and_booleans_are_not(name):
    for wrong in (True, np.True_, np.float64(3.0), "3", 0):
        with pytest.raises(InputError, match=f"{name} must be a (positive integer|whole number)"):
            NUMBERS[name](wrong)
    jax.tree.map(np.testing.assert_array_equal, NUMBERS[name](np.uint8(3)), NUMBERS[name](3))


LAW, COLUMN = Normal(jnp.zeros(3), jnp.ones(3)), Normal(jnp.zeros((3, 1)), jnp.ones((3, 1)))


class Stray:
    """A law whose log-probabilities are a column beside its draws."""

    def __init__(self, params=None):
        self.law = LAW

    def sample(self, key):
        return self.law.sample(key)

    def log_prob(self, z):
        return self.law.log_prob(z[..., None])


def column(x, z):
    return Normal(jnp.zeros((3, 1)), jnp.ones((3, 1)))


def chain(initial=LAW, law=lambda x, z: Normal(z, jnp.ones(3)), inverse=lambda x, z: Normal(z, jnp.ones(3))):
    """Of three examples with one latent number each."""
    return vi.markov_chain(KEY, None, lambda x, z: -(z**2), initial, [law], [inverse])


def moved(x, z):
    return vi.Coordinate(z, 0, Normal(jnp.zeros((2, 1)), jnp.ones((2, 1))))


def pairs(inverse):
    """Of two examples with two numbers each."""
    start = Normal(jnp.zeros((2, 2)), jnp.ones((2, 2)))
    return vi.markov_chain(KEY, None, lambda x, z: -(z**2).sum(-1), start, [lambda x, z: start], [inverse])


@pytest.mark.parametrize(
    "call",
    [
        lambda: vi.negative_kl(COLUMN)(LAW, jnp.zeros(3)),
        lambda: vi.gradient(
            jnp.sum, lambda p: Normal(p, jnp.ones(3)), jnp.zeros(3), KEY, 2, own=vi.negative_kl(COLUMN)
        ),
        lambda: vi.Factorised({"a": LAW}).kl(vi.Factorised({"a": COLUMN})),
        lambda: vi.Factorised({"a": COLUMN}).log_prob({"a": jnp.zeros(3)}),
        lambda: vi.sampled_entropy(COLUMN, jnp.zeros(3)),
        lambda: vi.gradient(jnp.sum, Stray, jnp.zeros(3), KEY, 2, "score"),
        lambda: chain(initial=Stray()),
        lambda: chain(inverse=column),
        lambda: pairs(moved),
        lambda: vi.hamiltonian(
            *(KEY, None, lambda x, z: -(z**2), LAW),
            vi.Hamiltonian(jnp.zeros(()), jnp.zeros(()), lambda x, z: LAW, column),
            1,
        ),
    ],
)
def test_an_axis_that_the_draws_have_not_is_not_summed(call):
    with pytest.raises(InputError, match=r"of shape \((2, 2|3, 3)\) does not fit draws of shape \([23],\)"):
        call()


def test_a_baseline_is_one_number():
    with pytest.raises(InputError, match=r"baseline must be a number, not an array of shape \(2, 1\)"):
        vi.gradient(jnp.sum, normal, (jnp.ones(2), jnp.ones(2)), KEY, 2, "score", None, jnp.zeros((2, 1)))
