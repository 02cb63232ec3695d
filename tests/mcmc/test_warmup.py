from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.mcmc import Kernel, gibbs, hmc, langevin, run, warmup

KEY = jax.random.key(5)


def gaussian(scales):
    return lambda q: -0.5 * sum(jnp.sum((q[name] / scales[name]) ** 2) for name in scales)


def make_hmc(scales):
    return lambda step_size, inverse_mass: hmc(gaussian(scales), step_size, 5, inverse_mass)


def make_mala(scales):
    return lambda h, mass: langevin(gaussian(scales), h, metropolis=True, inverse_mass=mass)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "smallest", "largest", "target"), [(make_hmc, 0.01, 30.0, 0.8), (make_mala, 0.3, 3.0, 0.574)]
)
def test_warmup_finds_the_scales_and_the_acceptance(family, smallest, largest, target):
    """Four chains, each tuned by itself, then run with what it found."""
    scales = {"a": jnp.array([smallest, 1.0, largest]), "b": jnp.array(2.0)}
    make, start = family(scales), jax.tree.map(lambda s: jnp.zeros((4, *s.shape)), scales)

    @jax.jit
    @jax.vmap
    def tuned(key, position):
        found = warmup(make, key, position, 1000, target)
        _, infos = run(make(found.step_size, found.inverse_mass), key, found.position, 500)
        return found, infos.acceptance_probability.mean()

    found, acceptance = tuned(jax.random.split(KEY, 4), start)
    # The last window has some 500 correlated draws.
    for name in scales:
        ratio = found.inverse_mass[name] / scales[name] ** 2
        assert ((ratio > 0.5) & (ratio < 2.0)).all(), ratio
    assert (jnp.abs(acceptance - target) < 0.15).all(), acceptance
    assert len(jnp.unique(found.step_size)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [20, 40])
def test_few_steps_end_at_a_step_size_that_moves(num_steps):
    """HMC on N(0, 30²) in one dimension and on N(0, 1) in three: a hundred chains, each tuned by itself."""

    @jax.jit
    def acceptance(key):
        def one(key, x, scale):
            make = make_hmc({"a": scale})
            found = warmup(make, key, {"a": x}, num_steps)
            _, infos = run(make(found.step_size, found.inverse_mass), key, found.position, 20)
            return infos.acceptance_probability.mean()

        keys = jax.random.split(key, 100)
        return jax.vmap(lambda key: jnp.stack([one(key, scale, scale) for scale in (jnp.full(1, 30.0), jnp.ones(3))]))(
            keys
        )

    means = np.asarray(acceptance(KEY))
    assert (means > 0.1).mean() > 0.97, means  # from 20 steps, formerly 97% of the chains were stuck
    assert (means.mean(0) > 0.8 - 0.1).all(), means.mean(0)


class State(NamedTuple):
    position: Array
    count: Array


class Info(NamedTuple):
    acceptance_probability: Array


def replay(draws):
    """A kernel that goes through given draws and accepts with probability exp(-step size)."""

    def make(step_size, inverse_mass):
        def step(key, state):
            return State(draws[state.count], state.count + 1), Info(jnp.exp(-step_size))

        return Kernel(lambda position: State(position, jnp.asarray(0)), step)

    return make


def test_step_size_and_variances_of_a_chain_that_is_known():
    """exp(-ε) = δ has the root -log δ; of 400 steps the last window is 135 to 360, as in Stan's scheme."""
    draws = np.random.default_rng(0).normal(50.0, [0.1, 3.0], (400, 2)).astype("float32")
    found = warmup(replay(jnp.asarray(draws)), KEY, jnp.zeros(2), 400, 0.7, step_size=100.0)
    np.testing.assert_allclose(found.step_size, -np.log(0.7), rtol=0.05)
    window = draws[135:360].astype("float64")
    n = len(window)
    np.testing.assert_allclose(found.inverse_mass, n / (n + 5) * window.var(0, ddof=1) + 1e-3 * 5 / (n + 5), rtol=2e-3)
    np.testing.assert_array_equal(found.position, draws[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 10}, "num_steps must be at least 20"),
        ({"make_kernel": lambda h, mass: gibbs(lambda i, z: Normal(z[0], h))}, "acceptance probability"),
        ({"num_steps": 100.0}, "num_steps must be a positive integer"),
        ({"target_acceptance": 1.0}, "target_acceptance must be between 0 and 1"),
        ({"step_size": 0.0}, "step_size must be positive"),
        (
            {"make_kernel": lambda h, mass: langevin(None, h, inverse_mass=mass, score=jnp.negative)},
            "acceptance probability",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    ordinary = {"make_kernel": replay(jnp.zeros((50, 2))), "key": KEY, "position": jnp.zeros(2), "num_steps": 50}
    with pytest.raises(InputError, match=message):
        warmup(**(ordinary | arguments))
