"""Wake-sleep where its fixed point is known, probabilistic PCA, and reweighting against the exact gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import vi
from diffjax.distributions import Normal
from diffjax.errors import InputError

KEY = jax.random.key(8)
DIM, CODE = 4, 2


def recognise(phi, key, x):
    return Normal(phi["r"] @ x, jnp.exp(phi["log_t"])).sample(key)


def dream(theta, key):
    z_key, x_key = jax.random.split(key)
    z = jax.random.normal(z_key, (CODE,))
    return Normal(theta["w"] @ z, jnp.full(DIM, jnp.exp(theta["log_s"]))).sample(x_key), z


LINEAR = vi.Machine(
    recognise,
    lambda phi, x, z: Normal(phi["r"] @ x, jnp.exp(phi["log_t"])).log_prob(z).sum(),
    dream,
    lambda theta, x, z: (
        Normal(0.0 * z, 1.0 + 0.0 * z).log_prob(z).sum()
        + Normal(theta["w"] @ z, jnp.exp(theta["log_s"])).log_prob(x).sum()
    ),
)
AXES = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
SPECTRUM = np.array([4.0, 2.0, 0.6, 0.4])
DATA = np.random.default_rng(1).normal(size=(40_000, DIM)) * np.sqrt(SPECTRUM) @ AXES.T


def principal(rotation, cov):
    """The maximum of the likelihood (Tipping and Bishop 1999), W rotated, with the best q that factorises."""
    values, vectors = np.linalg.eigh(cov)
    s = values[:-CODE].mean()
    w = vectors[:, -CODE:] * np.sqrt(values[-CODE:] - s) @ rotation
    posterior = np.linalg.inv(np.eye(CODE) + w.T @ w / s)
    theta = {"w": w, "log_s": np.log(s)}
    phi = {"r": posterior @ w.T / s, "log_t": np.log(np.diag(posterior))}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (theta, phi))


def test_the_fixed_point_of_a_linear_model_is_pca_with_axes_that_the_recognition_model_can_follow():
    """With the principal axes as they are, q is the exact posterior: no phase moves. The same likelihood with the axes
    turned by 45 degrees is no fixed point, because the posterior no longer factorises."""
    cov = DATA.T @ DATA / len(DATA)
    keys = jax.random.split(KEY, len(DATA))
    x = jnp.asarray(DATA, jnp.float32)

    def loss(params, key, x):
        return vi.wake_sleep(LINEAR, *params, key, x)

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))

    def deviations(params):
        """The mean of each derivative in its standard errors."""
        parts = [np.asarray(g, float).reshape(len(x), -1) for g in jax.tree.leaves(gradients(params, keys, x))]
        flat = np.concatenate(parts, 1)
        return flat.mean(0) / (flat.std(0) / len(x) ** 0.5)

    assert np.abs(deviations(principal(np.eye(CODE), cov))).max() < 5
    turned = np.array([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    assert np.abs(deviations(principal(turned, cov))).max() > 20


@pytest.mark.slow
def test_from_anywhere_wake_sleep_reaches_the_maximum_of_the_likelihood():
    cov, num = DATA.T @ DATA / len(DATA), 4000
    x = jnp.asarray(DATA, jnp.float32)
    rng = np.random.default_rng(3)
    theta = {"w": rng.normal(size=(DIM, CODE)).astype(np.float32), "log_s": jnp.zeros(())}
    phi = {"r": rng.normal(size=(CODE, DIM)).astype(np.float32), "log_t": jnp.zeros(CODE)}

    def log_p(theta):
        model = np.asarray(theta["w"], float) @ np.asarray(theta["w"], float).T + np.exp(
            float(theta["log_s"])
        ) * np.eye(DIM)
        return -0.5 * (np.linalg.slogdet(2 * np.pi * model)[1] + np.trace(np.linalg.solve(model, cov)))

    def step(params, t):
        key = jax.random.fold_in(KEY, t)
        batch = x[jax.random.randint(key, (200,), 0, len(x))]
        keys = jax.random.split(key, 200)

        def loss(params):
            return jax.vmap(lambda k, x: vi.wake_sleep(LINEAR, *params, k, x))(keys, batch).mean()

        rate = 0.05 * (1 - t / num)
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params)), None

    (found, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(num)))((theta, phi))
    best = log_p(principal(np.eye(CODE), cov)[0])
    assert log_p(theta) < best - 0.3
    assert best - 0.01 < log_p(found) <= best + 1e-6


@pytest.mark.slow
def test_many_reweighted_draws_give_the_gradient_of_the_likelihood_whatever_q_is():
    cov = DATA.T @ DATA / len(DATA)
    theta, phi = principal(np.eye(CODE), cov)
    theta = theta | {"w": theta["w"] + 0.3}
    phi = {"r": 0.5 * phi["r"], "log_t": phi["log_t"] + 0.5}
    x = jnp.asarray(DATA[0], jnp.float32)
    model = np.asarray(theta["w"], float) @ np.asarray(theta["w"], float).T + np.exp(float(theta["log_s"])) * np.eye(
        DIM
    )
    # d log N(x; 0, W Wᵀ + s I)/dW = (C⁻¹ x xᵀ C⁻¹ - C⁻¹) W
    precision = np.linalg.inv(model)
    exact = (precision @ np.outer(DATA[0], DATA[0]) @ precision - precision) @ np.asarray(theta["w"], float)

    def gradient(key, num):
        def loss(theta):
            return vi.reweighted_wake_sleep(LINEAR, theta, phi, key, x, num)

        return jax.grad(loss)(theta)["w"]

    found = {}
    for num, repeats in ((1, 4000), (1000, 200)):
        drawn = np.asarray(jax.jit(jax.vmap(partial(gradient, num=num)))(jax.random.split(KEY, repeats)), float)
        found[num] = np.abs(-drawn.mean(0) - exact), drawn.std(0) / repeats**0.5
    error, deviation = found[1000]
    assert (error < 5 * deviation + 2e-3).all()  # what is left of the bias is of order 1/1000
    error, deviation = found[1]
    assert (error > 5 * deviation).any()  # one draw is wake-sleep, which follows q


def test_bad_numbers_are_named():
    with pytest.raises(InputError, match="num must be an integer of at least 1, the number of draws of h, not 0"):
        vi.reweighted_wake_sleep(LINEAR, {}, {}, KEY, jnp.zeros(DIM), 0)
    with pytest.raises(InputError, match=r"sleeps must be in \[0, 1\], the part of the sleep phase, not 2"):
        vi.reweighted_wake_sleep(LINEAR, {}, {}, KEY, jnp.zeros(DIM), 2, sleeps=2)
