"""Hamiltonian variational inference on a model whose log p(x) is known."""

import functools
import importlib

import gaussian
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bounds, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError

X = gaussian.X.astype(np.float32)
NUM = 2**14


def momenta(seed, scale=0.15):
    """A momentum model that depends on z and is nobody's optimum."""
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    weight, bias = scale * jax.random.normal(a, (2, 2)), scale * jax.random.normal(b, (2,))
    return vi.LinearNormal(weight, bias, scale * jax.random.normal(c, (2,)))


def iteration(seed):
    log_step_size, log_inverse_mass = jnp.log(jnp.array([0.2, 0.3])), jnp.array([0.3, -0.2])
    return vi.Hamiltonian(log_step_size, log_inverse_mass, momenta(seed), momenta(seed + 1))


def initial(x):
    return Normal(jnp.asarray(gaussian.mean(np.asarray(x))) + 0.2, jnp.full((*x.shape[:-1], 2), 0.4))


@functools.cache
def log_weights(num_leapfrog):
    params = [iteration(0), iteration(10)]

    def one(key):
        return vi.hamiltonian_log_weight(key, X, gaussian.log_joint, initial, params, num_leapfrog)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), NUM)))


@pytest.mark.fast(1)
@pytest.mark.parametrize("num_leapfrog", [1, 3])
def test_the_mean_weight_is_the_evidence(num_leapfrog):
    log_w = log_weights(num_leapfrog)
    assert log_w.shape == (NUM, 3)
    assert (np.abs(gaussian.z_scores(log_w, X)) < 5).all()
    assert log_w.std(0).min() > 0.3  # the equality is none of the parts': the weights do vary


def test_a_leapfrog_that_changes_volumes_is_seen(monkeypatch):
    """The drift with the old momentum, kick and drift at once, is the usual slip."""

    def euler(coefficients, evaluate, position, momentum, current, step_size, num_steps, inverse_mass):
        for _ in range(num_steps):
            position, momentum = (
                position + step_size * inverse_mass * momentum,
                momentum + step_size * evaluate(position)[1],
            )
        return position, momentum, evaluate(position)

    monkeypatch.setattr(importlib.import_module("diffjax.vi.hamiltonian"), "trajectory", euler)
    assert (np.abs(gaussian.z_scores(log_weights.__wrapped__(1), X)) > 5).all()


@pytest.mark.slow
def test_more_draws_bring_the_bound_nearer_and_never_over_the_evidence():
    log_w = log_weights(3).astype(np.float64)
    gaps = []
    for k in (1, 2, 8, 64):
        bound = np.asarray(bounds.importance_weighted(jnp.asarray(log_w.reshape(k, -1, 3))))
        error = bound.std(0) / len(bound) ** 0.5
        gaps.append(gaussian.log_evidence(X) - bound.mean(0))
        assert (gaps[-1] > -5 * error).all()
        assert (np.diff(gaps, axis=0)[-1:] < 5 * error).all()
    assert (gaps[0] > 2 * gaps[1] * 0.6).all() and (gaps[3] < 0.1 * gaps[0]).all()


def test_from_the_posterior_without_iterations_every_weight_is_the_evidence():
    def one(key):
        return vi.hamiltonian_log_weight(key, X, gaussian.log_joint, gaussian.Posterior, (), 1)

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 64))
    np.testing.assert_allclose(log_w, np.tile(gaussian.log_evidence(X), (64, 1)), rtol=1e-5)
    np.testing.assert_allclose(bounds.importance_weighted(log_w), gaussian.log_evidence(X), rtol=1e-5)


def test_from_the_posterior_the_weights_miss_the_evidence_by_the_energy_error():
    """Momenta N(0, M), of second order in the step: no accept or reject, but little to accept or reject."""
    mass = jnp.array([0.5, 2.0])
    law = vi.LinearNormal(jnp.zeros((2, 2)), jnp.zeros(2), jnp.log(mass))

    def spread(step_size):
        params = vi.Hamiltonian(jnp.log(step_size), -jnp.log(mass), law, law)

        def one(key):
            return vi.hamiltonian_log_weight(key, gaussian.X, gaussian.log_joint, gaussian.Posterior, params, 4)

        log_w = jax.vmap(one)(jax.random.split(jax.random.key(0), 500))
        return jnp.abs(log_w - gaussian.log_evidence(gaussian.X)).mean()

    with jax.enable_x64(True):
        errors = np.asarray(jax.jit(jax.vmap(spread))(jnp.array([0.1, 0.05])))
    assert errors[0] < 0.02
    assert 3.5 < errors[0] / errors[1] < 9  # 4 in the step size at a given time, 8 at a given number of steps


@pytest.mark.slow
def test_the_gradient_in_every_parameter_is_the_slope():
    with jax.enable_x64(True):
        x = gaussian.X[0]
        free = {
            "mean": jnp.array([0.1, -0.3]),
            "log_variance": jnp.array([-0.5, 0.2]),
            "iterations": jax.tree.map(lambda p: p.astype(float), [iteration(0), iteration(10)]),
            "model": jnp.array([0.3, -0.2]),
        }

        def bound(free):
            def log_joint(x, z):
                return gaussian.log_joint(x, z * jnp.exp(free["model"])) + free["model"].sum()

            law = Normal(free["mean"], jnp.exp(free["log_variance"]))
            keys = jax.random.split(jax.random.key(3), 4)
            log_weight = vi.hamiltonian_log_weight
            return jax.vmap(lambda key: log_weight(key, x, log_joint, law, free["iterations"], 3))(keys).mean()

        flat, unravel = jax.flatten_util.ravel_pytree(free)
        value = lambda flat: bound(unravel(flat))  # noqa: E731
        h = 1e-5
        moved = flat + h * np.concatenate([np.eye(len(flat)), -np.eye(len(flat))])
        gradient, values = jax.jit(lambda flat, moved: (jax.grad(value)(flat), jax.lax.map(value, moved)))(flat, moved)
        up, down = np.asarray(values).reshape(2, -1)
        slope = (up - down) / (2 * h)
        assert flat.dtype == jnp.float64
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-8)
        assert (np.abs(gradient) > 1e-6).all()  # nothing is left out


def test_the_shape_of_an_event_does_not_matter():
    """z (2,), (1, 2) and batches of them: the same draws, the same weights."""

    @functools.partial(jax.jit, static_argnums=0)
    def log_w(shape):
        def standard(x, z):
            return Normal(0.3 * jnp.flip(z, -1), jnp.full(z.shape, 1.5))

        def log_joint(x, z):
            return gaussian.log_joint(x, z.reshape(*x.shape[:-1], 2))

        law = Normal(jnp.zeros(shape), jnp.full(shape, 0.7))
        params = vi.Hamiltonian(jnp.log(0.2), jnp.array([0.3, -0.2]), standard, standard)
        return vi.hamiltonian(jax.random.key(1), jnp.asarray(X), log_joint, law, [params, params], 2)

    z, flat = log_w((3, 2))
    z2, deep = log_w((3, 1, 2))
    np.testing.assert_allclose(flat, deep, rtol=1e-6)
    np.testing.assert_allclose(z, z2[:, 0], rtol=1e-6)


def test_one_example_is_a_batch_without_axes():
    params = iteration(0)

    def one(key):
        return vi.hamiltonian_log_weight(key, X[0], gaussian.log_joint, initial, params, 1)

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), 10_000))
    assert log_w.shape == (10_000,)
    assert abs(gaussian.z_scores(log_w[:, None], X[:1])[0]) < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_leapfrog=0), "num_leapfrog must be a positive integer"),
        (dict(log_joint=lambda x, z: jnp.ones(7)), "one number per example"),
        (dict(initial=Normal(jnp.zeros(2), jnp.ones(2))), "leading axes"),
        (dict(momentum=lambda x, z: Normal(jnp.zeros(2), jnp.ones(2))), "shape of z"),
        (dict(densities=(initial, [])), "0 momentum models and params 1"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    change = dict(num_leapfrog=1, log_joint=gaussian.log_joint, initial=initial, momentum=momenta(0)) | change
    params = iteration(0)._replace(momentum=change["momentum"])
    with pytest.raises(InputError, match=message):
        vi.hamiltonian_log_weight(
            jax.random.key(0),
            X,
            change["log_joint"],
            change["initial"],
            params,
            change["num_leapfrog"],
            change.get("densities"),
        )


def test_a_step_size_has_a_logarithm():
    for step_size in (0.0, np.inf, np.nan):
        with pytest.raises(InputError, match="step_size must be positive and finite"):
            vi.linear_hamiltonian(2, step_size)
    params = vi.linear_hamiltonian(2, 0.3)
    np.testing.assert_allclose(jnp.exp(params.log_step_size), 0.3, rtol=1e-6)
