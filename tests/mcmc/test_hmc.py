import sys

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stationarity import LIMIT, MIXTURE, NUM_DRAWS, log_density, score, z_scores

from diffjax.errors import InputError
from diffjax.mcmc import MCLACHLAN, YOSHIDA, Kernel, hmc, leapfrog, run

DIAGONAL, DENSE = jnp.array([2.0, 0.5]), MIXTURE.cov
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def exact():
    return MIXTURE.sample(jax.random.key(0), NUM_DRAWS)


def compiled_run(kernel, position, num_steps):
    """As users compile: the tests' own level of optimisation (conftest.py) rounds otherwise."""
    options = {"xla_backend_optimization_level": 3}
    return jax.jit(lambda key: run(kernel, key, position, num_steps), compiler_options=options)(KEY)


def worst(kernel, exact, key=KEY):
    return float(jnp.abs(z_scores(kernel, key, exact)).max())


def repeated(kernel, num_steps):
    """The kernel of several steps, which shows what the momentum carries from one to the next."""

    def step(key, state):
        return jax.lax.scan(lambda state, key: kernel.step(key, state), state, jax.random.split(key, num_steps))

    return Kernel(kernel.init, step)


# --- against blackjax


def banana(x):
    """x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁² / 2, ½²), x₃, ... ~ N(0, 4)."""
    return -0.5 * (x[0] ** 2 + 4 * (x[1] - 0.5 * x[0] ** 2) ** 2 + jnp.sum(x[2:] ** 2) / 4)


MASSES = {"diagonal": jnp.array([0.5, 1.0, 1.5, 2.0, 3.0]), "dense": jnp.eye(5) + 0.3}


@pytest.mark.slow
@pytest.mark.parametrize("mass", MASSES)
def test_chains_are_those_of_blackjax_bit_for_bit(mass):
    states, infos = compiled_run(hmc(banana, 0.35, 7, MASSES[mass]), jnp.ones(5), 500)
    other = blackjax.hmc(banana, 0.35, MASSES[mass], 7)
    expected, expected_infos = compiled_run(Kernel(other.init, other.step), jnp.ones(5), 500)
    assert 0.5 < infos.accepted.mean() < 0.99
    np.testing.assert_array_equal(infos.accepted, expected_infos.is_accepted)
    np.testing.assert_array_equal(states.position, expected.position)


@pytest.mark.slow
def test_another_integrator_follows_that_of_blackjax():
    """Up to rounding: XLA fuses the two otherwise."""
    mass = MASSES["diagonal"]
    states, _ = compiled_run(hmc(banana, 0.35, 7, mass, coefficients=MCLACHLAN), jnp.ones(5), 20)
    other = blackjax.hmc(banana, 0.35, mass, 7, integrator=blackjax.mcmc.integrators.mclachlan)
    expected, _ = compiled_run(Kernel(other.init, other.step), jnp.ones(5), 20)
    np.testing.assert_allclose(states.position, expected.position, atol=1e-3)
    assert len(jnp.unique(states.position[:, 0])) > 10


@pytest.mark.slow
def test_posterior_moments_are_those_of_nuts_as_the_documentation_calls_it():
    """Bayesian logistic regression; the standard errors are those of independent chains."""
    x_key, y_key, key = jax.random.split(KEY, 3)
    x = jax.random.normal(x_key, (40, 3))
    y = jax.random.bernoulli(y_key, jax.nn.sigmoid(x @ jnp.array([1.0, -2.0, 0.0])))
    lines = [line.strip() for line in sys.modules["diffjax.mcmc.hmc"].__doc__.splitlines() if line.startswith("    ")]

    def posterior(w):
        return jnp.sum(jax.nn.log_sigmoid(jnp.where(y, 1, -1) * (x @ w))) - 0.5 * w @ w

    def nuts(key):
        names = {"blackjax": blackjax, "Kernel": Kernel, "run": run, "log_density": posterior, "key": key}
        names |= {"step_size": 0.3, "inverse_mass": jnp.ones(3), "position": jnp.zeros(3), "num_steps": 150}
        exec("\n".join(lines[-3:]), names)
        return names["states"]

    def ours(key):
        return run(hmc(posterior, 0.3, 5), key, jnp.zeros(3), 150)[0]

    def moments(chain, key):
        draws = jax.jit(jax.vmap(chain))(jax.random.split(key, 40)).position[:, 30:]
        each = jnp.concatenate([draws.mean(1), (draws**2).mean(1), (draws[..., :1] * draws[..., 1:]).mean(1)], axis=1)
        return each.mean(0), each.std(0) / jnp.sqrt(len(each))

    expected, expected_error = moments(nuts, key)
    mean, error = moments(ours, jax.random.fold_in(key, 1))
    assert (jnp.abs(mean - expected) < 5 * jnp.hypot(error, expected_error)).all()
    assert (error < 0.05).all()


# --- stationarity

SOUND = {
    "scalar": hmc(log_density, 0.8, 3, 0.7),
    "diagonal": hmc(log_density, 0.7, 3, DIAGONAL),
    "dense": hmc(log_density, 0.7, 3, DENSE),
    "yoshida": hmc(log_density, 1.0, 2, DENSE, coefficients=YOSHIDA),
    "persistent": repeated(hmc(log_density, 1.2, 1, persistence=0.9), 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_exact_draws_stay_exact(name, exact):
    assert worst(SOUND[name], exact) < LIMIT


def without_metropolis():
    return hmc(log_density, 0.9, 3, metropolis=False)


def with_the_wrong_sign():
    kernel = without_metropolis()

    def step(key, state):
        proposal, info = kernel.step(key, state)
        accepted = jax.random.bernoulli(key, jnp.exp(jnp.minimum(info.energy_error, 0.0)))
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, state), info

    return Kernel(kernel.init, step)


def with_the_wrong_momenta():
    """Draws from N(0, I) where the mass says N(0, M)."""
    kernel = hmc(log_density, 0.7, 3, DIAGONAL)

    def step(key, state):
        p = jax.random.normal(key, (2,))
        q, end = leapfrog(score, state.position, p, 0.7, 3, DIAGONAL)
        change = 0.5 * jnp.sum(DIAGONAL * (end**2 - p**2)) - log_density(q) + state.log_density
        accepted = jax.random.bernoulli(jax.random.fold_in(key, 1), jnp.exp(jnp.minimum(-change, 0.0)))
        return state._replace(position=jnp.where(accepted, q, state.position)), change

    return Kernel(kernel.init, step)


def without_turning_round():
    """Persistent momentum that is not turned round when a proposal is rejected."""
    kernel = hmc(log_density, 1.2, 1, persistence=0.9)

    def step(key, state):
        state, info = kernel.step(key, state)
        return state._replace(momentum=jnp.where(info.accepted, 1, -1) * state.momentum), info

    return repeated(Kernel(kernel.init, step), 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken", [without_metropolis, with_the_wrong_sign, with_the_wrong_momenta, without_turning_round]
)
def test_broken_kernels_are_rejected(broken, exact):
    assert worst(broken(), exact) > 2 * LIMIT


@pytest.mark.fast(1)
@pytest.mark.parametrize("inverse_mass", [1.0, DIAGONAL, DENSE], ids=["scalar", "diagonal", "dense"])
def test_the_mean_of_exp_minus_energy_error_is_one(inverse_mass, exact):
    """E[exp(-ΔH)] = 1 at stationarity (Neal 2011, eq. 5.31), since the integrator keeps volume."""
    kernel = hmc(log_density, 0.4, 3, inverse_mass)  # a larger step gives exp(-ΔH) an infinite variance
    _, info = jax.jit(lambda x: jax.vmap(kernel.step)(jax.random.split(KEY, NUM_DRAWS), jax.vmap(kernel.init)(x)))(
        exact
    )
    weights = jnp.exp(-info.energy_error)
    assert abs(weights.mean() - 1) < 5 * weights.std() / NUM_DRAWS**0.5 < 0.01
    assert info.acceptance_probability.mean() < 0.97  # or there were nothing to see
    error = jnp.sqrt(info.accepted.mean() * (1 - info.accepted.mean()) / NUM_DRAWS)
    assert abs(info.accepted.mean() - info.acceptance_probability.mean()) < 5 * error


# --- what a kernel can be asked for


@pytest.mark.slow
def test_gradient_through_a_chain_matches_finite_differences():
    with jax.enable_x64(True):

        def loss(parameters):
            def target(q):
                return -0.5 * jnp.sum((q["a"] - parameters[0]) ** 2) - 0.25 * q["b"] ** 4 + q["a"][0] * q["b"]

            mass = {"a": jnp.exp(parameters[1]) * jnp.ones(2), "b": parameters[4]}
            kernel = hmc(target, parameters[2], 3, mass, metropolis=False, persistence=parameters[3])
            position = {"a": jnp.array([0.3, -0.2]), "b": jnp.array(0.5)}
            states, infos = run(kernel, KEY, position, 4)
            return jnp.sum(states.position["a"] * states.position["b"][:, None]) + infos.energy_error.sum()

        loss = jax.jit(loss)
        at = jnp.array([0.2, 0.1, 0.3, 0.6, 0.8])
        gradient = jax.jit(jax.grad(loss))(at)
        steps = 1e-5 * jnp.eye(len(at))
        expected = jnp.array([(loss(at + h) - loss(at - h)) / 2e-5 for h in steps])
    np.testing.assert_allclose(gradient, expected, rtol=1e-7)
    assert (np.abs(gradient) > 1e-2).all()


def test_a_score_is_enough_without_metropolis():
    arguments = (0.3, 4, DENSE, False, 0.5)
    states, _ = run(hmc(log_density, *arguments), KEY, jnp.zeros(2), 20)
    scored, info = run(hmc(None, *arguments, score=score), KEY, jnp.zeros(2), 20)
    np.testing.assert_allclose(scored.position, states.position, rtol=1e-5)
    assert scored.log_density is None and info.energy_error is None


def test_a_divergence_is_seen_and_rejected():
    kernel = hmc(lambda x: -jnp.sum(x**4), 50.0, 10)
    state, info = kernel.step(KEY, kernel.init(jnp.ones(2)))
    assert info.divergent and not info.accepted and info.acceptance_probability == 0
    np.testing.assert_array_equal(state.position, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_leapfrog": 0}, "num_leapfrog must be a positive integer"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"step_size": jnp.array([0.1, -0.1])}, "step_size must be positive"),
        ({"persistence": 1.0}, "persistence must be in"),
        ({"persistence": np.full(2, 0.5)}, r"persistence must be a number, not of shape \(2,\)"),
        ({"coefficients": (1.0, 1.0, 0.0)}, "palindrome"),
        ({"log_density": None, "score": score}, "metropolis=True needs a log_density"),
        ({"log_density": None, "metropolis": False}, "exactly one"),
        ({"score": score}, "exactly one"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        hmc(**({"log_density": log_density, "step_size": 0.1, "num_leapfrog": 3} | arguments))


INDEFINITE = jnp.array([[1.0, 2.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("kernel", "position", "message"),
    [
        (hmc(lambda x: x, 0.1, 3), jnp.zeros(2), r"log_density must be a scalar, not of shape \(2,\)"),
        (hmc(lambda x: jnp.log(x[0]), 0.1, 3), jnp.zeros(2), "log_density is -inf at the start"),
        (hmc(lambda x: jnp.log(x[0]), 0.1, 3), -jnp.ones(2), "log_density is nan at the start"),
        (hmc(lambda x: -jnp.linalg.norm(x), 0.1, 3), jnp.zeros(2), "score at the start is not finite"),
        (hmc(log_density, 0.1, 3), jnp.zeros(2, int), "position must be floating-point, not int32"),
        (hmc(log_density, 0.1, 3, -1.0), jnp.zeros(2), "positive definite"),
        (hmc(log_density, 0.1, 3, jnp.array([1.0, 0.0])), jnp.zeros(2), "positive definite"),
        (hmc(log_density, 0.1, 3, np.inf), jnp.zeros(2), "positive and finite"),
        (hmc(log_density, 0.1, 3, INDEFINITE), jnp.zeros(2), "positive definite"),
        (hmc(log_density, 0.1, 3, jnp.array([[1.0, 0.2], [0.0, 1.0]])), jnp.zeros(2), "symmetric"),
        (hmc(log_density, 0.1, 3, jnp.eye(3)), jnp.zeros(2), r"not of shape \(3, 3\)"),
        (hmc(log_density, 0.1, 3, {"a": 1.0}), jnp.zeros(2), "inverse_mass must be a number"),
        (hmc(None, 0.1, 3, 1.0, False, score=log_density), jnp.zeros(2), "score must be like the position"),
    ],
)
def test_bad_targets_are_named(kernel, position, message):
    with pytest.raises(InputError, match=message):
        kernel.init(position)
    if "start" not in message:  # shapes and constants are known while tracing, a start is not
        with pytest.raises(InputError, match=message):
            jax.eval_shape(kernel.init, position)
