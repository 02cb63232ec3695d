"""Generative stochastic networks and the stack of contractive auto-encoders, as systems, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from diffjax import zoo
from diffjax.zoo.autoencoders import kinds
from diffjax.zoo.markov.gsn import gsn

KEY = jax.random.key(12)
X = np.random.default_rng(0).integers(0, 3, (5, 4)).astype(np.uint8)


def randomized(shapes):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.slow
def test_without_noise_the_network_is_its_equations():
    """Two steps of a 4-3-2 network with corruption and noise 0: the second is from draws of bits that are certain."""
    model = gsn((4,), 3, (3, 2), corruption=0.0, noise=0.0, walkbacks=2, sample_steps=2)
    params = randomized(jax.eval_shape(model.init, KEY))
    params["biases"][0] = np.array([40.0, -40.0, 40.0, -40.0], np.float32)  # what is drawn is known
    w0, w1 = (w.astype(float) for w in params["weights"])
    b0, b1, b2 = (b.astype(float) for b in params["biases"])
    x, h2, losses = X / 2.0, np.zeros((5, 2)), []
    for _ in range(2):
        h1 = np.tanh(b1 + x @ w0 + h2 @ w1.T)
        h2 = np.tanh(b2 + h1 @ w1)
        logits = b0 + h1 @ w0.T
        losses.append((np.logaddexp(0, logits) - X / 2.0 * logits).sum(1))
        x = np.round(expit(logits))
    found = jax.jit(model.loss)(params, jax.random.split(KEY, 5), {"image": X})
    np.testing.assert_allclose(found, np.mean(losses, 0), rtol=1e-5)
    assert np.abs(losses[0] - losses[1]).max() > 1e-3
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(params, KEY, 3))
    np.testing.assert_allclose(samples, np.tile([1.0, -1.0, 1.0, -1.0], (3, 1)), atol=1e-5)


@pytest.mark.slow
def test_each_layer_of_the_stack_learns_as_if_it_were_alone():
    stack = kinds.stacked_contractive(4, 2, (3,), 0.3, 0.5, 4)
    first, second = kinds.contractive(4, 3, (), 0.3), kinds.contractive(3, 2, (), 0.3)
    params = randomized(jax.eval_shape(stack.init, KEY))
    x = jnp.asarray(X / 2.0, jnp.float32)

    @jax.jit
    def gradients(params):
        h = first.encode(params["layer_0"], x)
        whole = jax.grad(lambda p: stack.loss(p, KEY, x).sum())(params)
        one = jax.grad(lambda p: first.loss(p, KEY, x).sum())(params["layer_0"])
        two = jax.grad(lambda p: second.loss(p, KEY, h).sum())(params["layer_1"])
        return whole, one, two

    whole, one, two = gradients(params)
    for found, alone in ((whole["layer_0"], one), (whole["layer_1"], two)):
        assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(alone))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, alone)
    code = second.encode(params["layer_1"], first.encode(params["layer_0"], x))
    np.testing.assert_allclose(stack.encode(params, x), code, rtol=1e-6)
    back = first.decode(params["layer_0"], second.decode(params["layer_1"], code))
    np.testing.assert_allclose(stack.decode(params, code), back, rtol=1e-6)


def test_data_without_levels_are_refused():
    from configs import gsn_digits

    config = gsn_digits.get_config()
    config.data.levels = 0
    with pytest.raises(zoo.model.InputError, match=r"data.levels=0: this network takes data of at least 2 levels"):
        zoo.make(config)
