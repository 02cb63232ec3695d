"""Helmholtz machines of three bits and 2-2 hidden ones, against all states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import helmholtz_digits
from diffjax import zoo
from diffjax.errors import InputError
from diffjax.evaluation.many_samples import ManySamples
from diffjax.zoo.latent import helmholtz

KEY = jax.random.key(9)
UNITS = (3, 2, 2)


def states(num):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num)), np.float32)


def log_bits(x, logits):
    return (x * logits - np.logaddexp(0, logits)).sum(-1)


@pytest.fixture(scope="module")
def case():
    """The model, its parameters, log p(x, h) and log q(h | x) of every x (8) and h (16), in numpy."""
    model = helmholtz.helmholtz((3,), UNITS[1:])
    params = model.init(KEY)
    params["generative"]["prior"] = jnp.array([0.4, -0.7])
    params["generative"]["layers"][0]["bias"] = jnp.array([0.5, 0.0, -1.0])
    theta, phi = jax.tree.map(lambda leaf: np.asarray(leaf, float), (params["generative"], params["recognition"]))
    x, h1, h2 = (part.astype(float) for part in np.split(states(7), [3, 5], axis=1))

    def logits(layer, h):
        return h @ layer["weights"] + layer["bias"]

    log_p = log_bits(h2, theta["prior"]) + log_bits(h1, logits(theta["layers"][1], h2))
    log_p += log_bits(x, logits(theta["layers"][0], h1))
    log_q = log_bits(h1, logits(phi[0], x)) + log_bits(h2, logits(phi[1], h1))
    return model, params, log_p.reshape(8, 16), log_q.reshape(8, 16)


def test_weights_bound_and_dreams_are_those_of_the_table(case):
    model, params, log_p, log_q = case
    num, x = 2000, states(3)
    np.testing.assert_allclose(np.exp(log_q).sum(1), 1, rtol=1e-6)
    weigh = model.measure(ManySamples).log_weight

    @jax.jit
    def draw(key):
        keys = jax.random.split(key, num)
        log_w = jax.vmap(lambda key: weigh(params, key, {"image": x.astype(jnp.uint8)}))(keys)
        bound = jax.vmap(lambda key: model.bound(params, key, {"image": x.astype(jnp.uint8)}))(keys)
        dreams = jax.vmap(lambda key: helmholtz.machine(3, UNITS[1:]).dream(params["generative"], key)[0])(keys)
        return log_w, bound, dreams

    log_w, bound, dreams = (np.asarray(value, float) for value in draw(KEY))
    p = np.exp(log_p).sum(1)
    w = np.exp(log_w)
    assert (np.abs(w.mean(0) - p) < 5 * w.std(0) / num**0.5).all()
    elbo = (np.exp(log_q) * (log_p - log_q)).sum(1)
    assert (np.abs(bound.mean(0) - elbo) < 5 * bound.std(0) / num**0.5).all()
    frequencies = (dreams[:, None] == x).all(-1).mean(0)
    assert (np.abs(frequencies - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


@pytest.mark.slow
def test_the_gradient_of_reweighting_is_that_of_the_likelihood(case):
    """Of the bias of the lowest layer: E[x - sigmoid(logits) | x], of the table."""
    _, params, log_p, _ = case
    model = helmholtz.helmholtz((3,), UNITS[1:], objective="reweighted", num_samples=300, sleeps=1.0)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, float), params["generative"]["layers"][0])
    h1 = np.repeat(states(2), 4, axis=0)
    x = states(3)
    posterior = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1)[:, None])
    mean = 1 / (1 + np.exp(-(h1 @ layer["weights"] + layer["bias"])))
    exact = -(x - posterior @ mean)
    repeats = 100

    def gradient(key):
        x8 = {"image": x.astype(jnp.uint8)}
        keys = jax.random.split(key, 8)
        pull = jax.jacrev(lambda params: model.loss(params, keys, x8))(params)
        return pull["generative"]["layers"][0]["bias"]

    found = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(KEY, repeats)), float)
    assert (np.abs(found.mean(0) - exact) < 5 * found.std(0) / repeats**0.5 + 2e-3).all()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("data", {"levels": 17}, "a Bernoulli likelihood is of bits, not of data.levels=17"),
        ("helmholtz", {"objective": "elbo"}, "helmholtz.objective must be one of wake_sleep, reweighted, not 'elbo'"),
        ("helmholtz", {"hidden": ()}, "helmholtz.hidden must be the numbers of bits of the hidden layers"),
        ("helmholtz", {"num_samples": 0}, "helmholtz.num_samples must be an integer of at least 1, not 0"),
        ("helmholtz", {"sleeps": 1.5}, r"helmholtz.sleeps must be in \[0, 1\], not 1.5"),
    ],
)
def test_bad_configurations_are_named(section, values, message):
    config = helmholtz_digits.get_config()
    config[section].update(values)
    with pytest.raises(InputError, match=message):
        zoo.make(config)
