import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffjax.nets.layers import Dropout, GroupNorm, Upsample, sinusoid


def test_sinusoid_is_the_formula():
    time, size = np.array([0.0, 1.0, 999.0]), 128
    w = 10000.0 ** (-np.arange(64) / 63)
    expected = np.concatenate([np.sin(time[:, None] * w), np.cos(time[:, None] * w)], axis=1)
    # angles up to 999 in float32 carry an error of 999 * 2^-24
    np.testing.assert_allclose(sinusoid(jnp.asarray(time), size), expected, atol=2e-4)


def test_dropout_keeps_the_mean_the_rate_and_the_independence_of_neighbours():
    n, rate = 100_001, 0.1  # odd: the draws come in pairs
    out = Dropout(rate).apply({}, jnp.ones((1, 1, n, 1)), jax.random.key(0))[0, 0, :, 0]
    zero = np.asarray(out == 0, float)
    assert abs(zero.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-4)
    correlation = np.mean((zero[1:] - rate) * (zero[:-1] - rate)) / (rate * (1 - rate))
    assert abs(correlation) < 5 / np.sqrt(n)


@pytest.mark.slow
@pytest.mark.parametrize("channels, groups", [(128, 32), (64, 16), (40, 10), (6, 1)])
def test_group_norm_is_flax_group_norm(channels, groups):
    # far from zero mean, where E[x^2] - E[x]^2 cancels
    x = 3.0 + jax.random.normal(jax.random.key(0), (2, 6, 5, channels))
    params = {"scale": jnp.linspace(0.5, 2, channels), "bias": jnp.linspace(-1, 1, channels)}
    theirs = nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False).apply({"params": params}, x)
    np.testing.assert_allclose(GroupNorm(jnp.float32).apply({"params": params}, x), theirs, atol=1e-4)


@pytest.mark.slow
def test_upsample_is_nearest_neighbour_and_convolution_gradients_included():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    params = {"kernel": jax.random.normal(jax.random.key(1), (3, 3, 4, 4)), "bias": jnp.arange(4.0)}
    weight = jax.random.normal(jax.random.key(2), (2, 6, 10, 4))

    def plain(params, x):
        return nn.Conv(4, (3, 3)).apply({"params": params}, x.repeat(2, axis=1).repeat(2, axis=2))

    def ours(params, x):
        return Upsample(jnp.float32).apply({"params": params}, x)

    np.testing.assert_allclose(ours(params, x), plain(params, x), atol=1e-4)
    one, two = (jax.grad(lambda p, x, f=f: (f(p, x) * weight).sum(), (0, 1))(params, x) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), one, two)


@pytest.mark.fast(1)
@pytest.mark.parametrize("channels", [8, 32, 64, 128])
def test_group_norm_lets_a_shift_of_single_channels_through(channels):
    """Time and class enter a block as a constant per channel; groups of one channel would cancel it exactly."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, channels))
    shift = jax.random.normal(jax.random.key(1), (channels,))
    net = GroupNorm(jnp.float32)
    params = net.init(jax.random.key(2), x)
    change = net.apply(params, x + shift) - net.apply(params, x)
    assert float(jnp.abs(change.mean((0, 1, 2))).mean()) > 0.2
