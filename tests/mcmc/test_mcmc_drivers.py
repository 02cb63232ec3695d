"""What every driver of `mcmc` keeps: the types that it is given, and its compiled form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import mcmc
from diffjax.distributions import Normal
from diffjax.errors import InputError

KEY = jax.random.key(11)
X = np.array([0.5, -1.25])  # which 16 bits hold exactly
DRAWS = np.random.default_rng(0).normal(size=(2, 40)).astype(jnp.bfloat16).astype(np.float16)


def log_density(scale):
    return lambda q: -0.5 * jnp.sum((q / scale) ** 2) - 0.1 * jnp.sum(q**4)


def mass(scale):
    return jnp.array([[1.0, 0.3], [0.3, 1.0]], scale.dtype) * scale


class Start:
    """A point, of any type, that claims to be drawn from N(0, 1)."""

    def __init__(self, x):
        self.x = x

    def sample(self, key):
        return self.x

    def log_prob(self, x):
        return -0.5 * x**2


def chain(kernel, x, num_steps=3):
    return mcmc.run(kernel, KEY, x, num_steps)


def conditional(scale):
    return lambda i, z: Normal(0.3 * z[1 - i], scale)


# (position, scale () or step size) -> a pytree
DRIVERS = {
    "integrate": lambda x, s: mcmc.leapfrog(lambda q: -q * s, x, x + 1, s, 3, mass(s)),
    "hmc": lambda x, s: chain(mcmc.hmc(log_density(s), 0.3 * s, 2, mass(s), persistence=0.5), x),
    "step": lambda x, s: (lambda kernel: kernel.step(KEY, kernel.init(x)))(mcmc.hmc(log_density(s), 0.3, 2, s)),
    "langevin": lambda x, s: chain(mcmc.langevin(None, 0.1 * s, score=lambda q: -q / s), x),
    "gibbs": lambda x, s: chain(mcmc.gibbs(conditional(s)), x),
    "relaxed": lambda x, s: chain(mcmc.over_relaxed_gibbs(conditional(s), -0.5), x),
    "warmup": lambda x, s: mcmc.warmup(lambda e, m: mcmc.hmc(log_density(s), e, 2, m), KEY, x, 30),
    "fit": lambda x, s: mcmc.fit_gaussian(KEY, log_density(s), Start(x), 2, 20, 2),
    "ais": lambda x, s: mcmc.ais(
        KEY, Start(x), log_density(s), [0.0, 0.5, 1.0], lambda f, beta: mcmc.hmc(f, 0.2 / (1 + beta), 2)
    ),
    "diagnostics": lambda x, s: [f(DRAWS.astype(x.dtype) * np.asarray(x[0])) for f in STATISTICS],
}
STATISTICS = (mcmc.ess, mcmc.ess_tail, mcmc.rhat)
SCALE = jnp.float32(0.75)


def same_types(tree, like):
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), tree, like)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", DRIVERS)
def test_types_do_not_change_the_numbers(name):
    """16 bits are float32 of the same value; float32 is itself, with jax's default at 64 bits or strict promotion."""
    drive = DRIVERS[name]
    want = drive(jnp.asarray(X, jnp.float32), SCALE)
    floats = [leaf for leaf in jax.tree.leaves(want) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats and all(leaf.dtype == jnp.float32 for leaf in floats)
    for dtype in (jnp.bfloat16, jnp.float16)[: 2 if name in ("step", "diagnostics") else 1]:
        got = drive(jnp.asarray(X, dtype), SCALE)
        same_types(got, want)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
    with jax.numpy_dtype_promotion("strict"):
        got = drive(jnp.asarray(X, jnp.float32), SCALE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
    with jax.enable_x64(True):
        got = drive(jnp.asarray(X, jnp.float32), SCALE)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype or not jnp.issubdtype(b.dtype, jnp.floating)
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", DRIVERS)
def test_a_second_call_compiles_nothing(name, compilations):
    x, others = jnp.asarray(X, jnp.float32), (jnp.asarray(2 * X, jnp.float32), jnp.float32(0.9))
    first = DRIVERS[name](x, SCALE)
    DRIVERS[name](x, SCALE)  # what is computed between the drivers
    compilations.clear()
    second = DRIVERS[name](*others)
    assert not compilations
    if name != "diagnostics":  # ranks know no scale
        assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))


NUMBERS = {
    "num_steps of run": lambda n: chain(mcmc.langevin(None, 0.1, score=jnp.negative), jnp.ones(2), n),
    "num_steps of leapfrog": lambda n: mcmc.leapfrog(jnp.negative, jnp.ones(2), jnp.ones(2), 0.1, n),
    "num_leapfrog": lambda n: mcmc.hmc(log_density(1.0), 0.1, n),
    "num_steps of warmup": lambda n: mcmc.warmup(lambda e, m: mcmc.hmc(log_density(1.0), e, 1, m), KEY, jnp.ones(2), n),
    "num_chains": lambda n: mcmc.fit_gaussian(KEY, log_density(1.0), Start(jnp.ones(2)), n, 20, 1),
}


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", NUMBERS)
def test_integers_of_numpy_are_integers_and_booleans_are_not(name):
    for wrong in (True, np.True_, np.float64(25.0), "25", 0):
        with pytest.raises(InputError, match="positive integer"):
            NUMBERS[name](wrong)
    got, want = NUMBERS[name](np.uint8(25)), NUMBERS[name](25)
    if name != "num_leapfrog":  # a kernel is a pair of functions
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("step_size", [np.inf, np.nan, -np.inf, 0.0])
def test_step_sizes_that_lead_nowhere_are_refused(step_size):
    for make in (
        lambda: mcmc.hmc(log_density(1.0), step_size, 1),
        lambda: mcmc.hmc(log_density(1.0), jnp.array([0.1, step_size]), 1),
        lambda: mcmc.langevin(log_density(1.0), step_size),
        lambda: mcmc.warmup(lambda e, m: mcmc.hmc(log_density(1.0), e, 1, m), KEY, X, 20, step_size=step_size),
        lambda: mcmc.leapfrog(jnp.negative, X, X, step_size, 1),
        lambda: mcmc.integrate(mcmc.MCLACHLAN, jnp.negative, X, X, step_size, 1),
    ):
        with pytest.raises(InputError, match="step_size must be"):
            make()


def cone(q):
    """Its score at 0 is 0/0."""
    return -jnp.sqrt(jnp.sum(q**2))


def step_function(q):
    return jnp.where(q[0] > 0, -jnp.sum(q**2), -jnp.inf)


def tuned(log_density, x):
    return mcmc.warmup(lambda e, m: mcmc.hmc(log_density, e, 2, m), KEY, x, 20)


def annealed(log_density, x):
    return mcmc.ais(KEY, Start(x), log_density, [0.0, 0.5, 1.0], lambda f, beta: mcmc.hmc(f, 0.1, 2))


STARTS = {
    "run": lambda f, x: chain(mcmc.hmc(f, 0.1, 2), x, 8),
    "warmup": tuned,
    "fit": lambda f, x: mcmc.fit_gaussian(KEY, f, Start(x), 2, 20, 2),
    "ais": annealed,
}


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("target", [cone, step_function])
def test_a_start_that_no_chain_can_leave_is_refused(name, target):
    with pytest.raises(InputError, match=r"score|log_density"):
        STARTS[name](target, jnp.zeros(2))


@pytest.mark.slow
def test_under_jit_such_a_start_shows():
    """Nothing is accepted, the tuned step size and the fitted moments are NaN, and ESS does not praise the draws."""
    (states, infos), tuning, fitted, drawn = jax.jit(lambda x: [start(cone, x) for start in STARTS.values()])(
        jnp.zeros(2)
    )
    assert infos.divergent.all() and not infos.accepted.any()
    np.testing.assert_array_equal(states.position, 0.0)
    for statistic in STATISTICS:
        assert np.isnan(statistic(states.position[None])).all()
    assert np.isnan(tuning.step_size)
    assert all(np.isnan(moment).all() for moment in fitted)
    assert drawn.infos.divergent.all()
