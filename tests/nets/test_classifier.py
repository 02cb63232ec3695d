"""The classifier of noisy images against Bayes' rule, where the classes are known Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.nets.classifier import Classifier


@pytest.mark.slow
def test_at_the_start_all_classes_are_equally_likely_and_dropout_happens_with_a_key_only():
    net = Classifier(num_classes=3, channels=8, multipliers=(1, 2), dropout=0.5)
    x, time = jax.random.normal(jax.random.key(0), (2, 7, 7, 1)), jnp.array([0.0, 999.0])
    params = jax.jit(net.init)(jax.random.key(1), x, time)
    assert params["params"]["head"]["kernel"].shape == (4 * 4 * 16, 3)  # 7x7 becomes 4x4, of twice the width
    apply = jax.jit(net.apply)
    np.testing.assert_array_equal(apply(params, x, time), np.zeros((2, 3)))
    params = jax.tree.map(lambda p: p + 0.1, params)
    plain = apply(params, x, time)
    keys = jax.random.split(jax.random.key(2), 2)  # one per example
    dropped = apply(params, x, time, keys)
    assert float(jnp.abs(dropped - plain).min()) > 0
    np.testing.assert_allclose(apply(params, x[::-1], time[::-1], keys[::-1])[::-1], dropped, rtol=1e-4)


@pytest.mark.slow
def test_trained_logits_and_their_slope_are_those_of_bayes():
    """x_0 = ±1 over the whole image: log p(1 | x_t)/p(0 | x_t) = 2 alpha Σx / sigma², at every noise level its own."""
    net, size = Classifier(num_classes=2, channels=8, multipliers=(1,)), 2
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, 300))

    def levels(t):
        sigma = (0.5 + 2.5 * t)[:, None, None, None]
        return 0.5, sigma

    def draw(key, num):
        label_key, time_key, noise_key = jax.random.split(key, 3)
        label = jax.random.bernoulli(label_key, shape=(num,)).astype(int)
        t = (jnp.arange(num) + jax.random.uniform(time_key)) / num
        alpha, sigma = levels(t)
        x = alpha * (2 * label - 1)[:, None, None, None] + sigma * jax.random.normal(noise_key, (num, size, size, 1))
        return x, t, label

    def log_odds(params, x, t):
        logits = net.apply(params, x, 1000 * t)
        return logits[:, 1] - logits[:, 0]

    def loss(params, key):
        x, t, label = draw(key, 128)
        return nn.softplus(jnp.where(label == 1, -1, 1) * log_odds(params, x, t)).mean()

    @jax.jit
    def train(key):
        init_key, key = jax.random.split(key)
        params = net.init(init_key, jnp.zeros((1, size, size, 1)), jnp.zeros(1))

        def step(carry, i):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, jax.random.fold_in(key, i)), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(300))[0][0]

    @jax.jit
    def compare(params, key):
        x, t, _ = draw(key, 2000)
        alpha, sigma = levels(t)
        slope = jax.grad(lambda x: log_odds(params, x, t).sum())(x)
        exact = (2 * alpha * x / sigma**2).sum((1, 2, 3))
        return log_odds(params, x, t), exact, slope.sum((1, 2, 3)), (size**2 * 2 * alpha / sigma**2)[:, 0, 0, 0]

    odds, exact, slope, steepness = (np.asarray(a) for a in compare(train(jax.random.key(0)), jax.random.key(1)))
    p, want = 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-exact))
    assert np.abs(p - want).mean() < 0.05  # the untrained ½ is 0.24 off
    for part in np.array_split(np.arange(2000), 4):  # from little noise to much: the slope falls from 6 to 0.6
        near = part[np.abs(exact[part]) < 2]
        np.testing.assert_allclose(slope[near].mean(), steepness[near].mean(), rtol=0.25)


def test_what_cannot_be_is_named():
    x, time = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2)
    for fields, says in (
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 3, "channels": 6, "multipliers": ()}, "multipliers is empty"),
        ({"num_classes": 3, "channels": 5}, "channels is 5"),
    ):
        with pytest.raises(InputError, match=says):
            Classifier(**fields).init(jax.random.key(0), x, time)
    with pytest.raises(InputError, match=r"x has shape \(2, 8, 8\)"):
        Classifier(3).init(jax.random.key(0), x[..., 0], time)
    with pytest.raises(InputError, match=r"time has shape \(\).*\(2,\)"):
        Classifier(3).init(jax.random.key(0), x, jnp.zeros(()))
