"""The Hamiltonian auto-encoder against quadrature over a latent space of one dimension, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hvi_mnist_conv, hvi_mnist_fc
from diffjax import zoo
from diffjax.bounds import importance_weighted
from diffjax.distributions import Bernoulli, Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.nets.autoencoders import Dense

SHAPE = (6, 5, 1)


def configuration(num_leapfrog, inference_network=True, iterations=1):
    config = hvi_mnist_fc.get_config()
    config.data.shape = SHAPE
    config.hvi.update(
        num_leapfrog=num_leapfrog, inference_network=inference_network, iterations=iterations, step_size=0.1
    )
    config.net.update(latent=1, features=(7, 5), momentum_units=4)
    return config


def randomized(model):
    """Parameters none of which is at its start, where momenta are standard and inverse models trivial."""

    @jax.jit
    def make(key):
        params = model.init(key)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, moved)

    return make(jax.random.key(0))


def images(num):
    return np.asarray(jax.random.bernoulli(jax.random.key(2), 0.4, (num, *SHAPE)), np.uint8)


def decode(params, z):
    return Dense((5, 7), 30).apply({"params": params["decoder"]}, z).reshape(*z.shape[:-1], *SHAPE)


@jax.jit
def exact(params, x):
    """log p(x) by the trapezoid rule, which is exact to rounding for smooth functions that vanish at the ends."""
    z = jnp.linspace(-9.0, 9.0, 2001)[:, None]
    log_likelihood = Bernoulli(decode(params, z)[:, None]).log_prob(x[None].astype(float)).sum((2, 3, 4))
    log_joint = log_likelihood + Normal(0.0, 1.0).log_prob(z)
    return jax.nn.logsumexp(log_joint, axis=0) + jnp.log(z[1, 0] - z[0, 0])


@pytest.mark.fast(1)
@pytest.mark.parametrize(("num_leapfrog", "inference_network", "iterations"), [(2, False, 1), (1, True, 2)])
def test_weights_have_the_likelihood_as_their_mean(num_leapfrog, inference_network, iterations):
    model = zoo.make(configuration(num_leapfrog, inference_network, iterations))
    params, x, num = randomized(model), images(3), 4000
    log_p = exact(params, x)
    draw = jax.jit(
        lambda keys: jax.vmap(lambda key: model.measure(ManySamples).log_weight(params, key, {"image": x}))(keys)
    )
    log_w = draw(jax.random.split(jax.random.key(3), num))
    w = np.exp(np.float64(log_w - log_p))
    assert (np.abs(w.mean(0) - 1) < 5 * w.std(0) / num**0.5).all()
    assert (w.std(0) < 5).all()  # with heavier tails the standard error would say nothing
    assert (log_w.mean(0) < log_p).all()
    assert (np.asarray(importance_weighted(log_w)) > log_w.mean(0)).all()


@pytest.mark.slow
def test_annealing_agrees_with_quadrature():
    config = configuration(2)
    config.evaluation.annealing.update(temperatures=8, num_leapfrog=2, step_size=0.3)
    model = zoo.make(config)
    params, x, num = randomized(model), images(3), 2000
    log_p = exact(params, x)
    draw = jax.jit(
        lambda keys: jax.vmap(lambda key: model.measure(ManySamples).annealed(params, key, {"image": x}))(keys)
    )
    w = np.exp(np.float64(draw(jax.random.split(jax.random.key(4), num)) - log_p))
    assert (np.abs(w.mean(0) - 1) < 5 * w.std(0) / num**0.5).all()


@pytest.mark.slow
def test_fitted_proposals_agree_with_quadrature_to_a_hundredth():
    model = zoo.make(configuration(2))
    params, x, num = randomized(model), images(3), 4000
    log_w = jax.jit(model.measure(ManySamples).log_weights, static_argnums=3)(
        params, jax.random.key(5), {"image": x}, num
    )
    w = np.exp(np.float64(log_w - exact(params, x)))
    assert (np.abs(w.mean(0) - 1) < 5 * w.std(0) / num**0.5).all()
    assert (w.std(0) / num**0.5 < 0.01).all()


def test_without_leapfrog_it_is_the_auto_encoder_whose_bound_is_known():
    """E log w = E log p(x | z) - KL(q ‖ p), the expectation by quadrature."""
    model = zoo.make(configuration(0))
    params, x, num = randomized(model), images(2), 20_000
    out = Dense((7, 5), 2).apply({"params": params["initial"]}, x.reshape(2, -1).astype(float))
    q = Normal(out[:, 0], jnp.exp(out[:, 1]))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = q.mean + jnp.sqrt(q.variance) * nodes[:, None]
    log_likelihood = Bernoulli(decode(params, z[..., None])).log_prob(x.astype(float)).sum((2, 3, 4))
    wanted = (weights @ log_likelihood) / weights.sum() - q.kl(Normal(0.0, 1.0))
    draw = jax.jit(lambda keys: jax.vmap(lambda key: model.measure(Bound).terms(params, key, {"image": x}))(keys))
    terms = draw(jax.random.split(jax.random.key(6), num))
    log_w = -np.float64(terms["reconstruction"] + terms["latent"])
    assert (np.abs(log_w.mean(0) - np.asarray(wanted)) < 5 * log_w.std(0) / num**0.5).all()
    error = np.float64(terms["latent"]).std(0) / num**0.5
    assert (np.abs(terms["latent"].mean(0) - np.asarray(q.kl(Normal(0.0, 1.0)))) < 5 * error).all()


@pytest.mark.slow
def test_training_gives_each_example_its_own_draw():
    model = zoo.make(configuration(2))
    params, x = randomized(model), images(4)
    keys = jax.random.split(jax.random.key(7), 4)
    loss = jax.jit(lambda keys, x: model.loss(params, keys, {"image": x}))
    together, alone = loss(keys, x), loss(keys[2:3], x[2:3])
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-5)


@pytest.mark.slow
def test_samples_are_drawn_from_the_prior():
    """The mean picture is the decoder's mean over N(0, 1), by quadrature."""
    model = zoo.make(configuration(1))
    params, num = randomized(model), 20_000
    samples = np.asarray(model.sample(params, jax.random.key(8), num))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    wanted = np.tensordot(weights, 2 * jax.nn.sigmoid(decode(params, jnp.asarray(nodes)[:, None])) - 1, 1)
    error = samples.std(0) / num**0.5
    assert (np.abs(samples.mean(0) - wanted / weights.sum()) < 5 * error + 1e-6).all()


@pytest.mark.slow
def test_the_convolutional_model_is_one_too():
    config = hvi_mnist_conv.get_config()
    config.data.shape = (5, 4, 1)
    config.hvi.num_leapfrog = 1
    config.net.update(latent=2, channels=(2,), units=5, momentum_units=4)
    model = zoo.make(config)
    params = randomized(model)
    x = np.ones((3, 5, 4, 1), np.uint8)
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, jax.random.key(1), {"image": x}).mean()))(params)
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))
    figure = jax.jit(
        lambda params: model.figures.own(params, jax.random.key(2), {"image": x})["reconstructions"].images
    )
    np.testing.assert_array_equal(figure(params)[:3], 2.0 * x - 1.0)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("data", "levels", 256, "set data.levels=2"),
        ("data", "shape", (784,), "height, width"),
        ("net", "name", "dense", "net.name must be 'fc' or, of images, 'conv', not 'dense'"),
        ("hvi", "num_leapfrog", -1, "hvi.num_leapfrog must be an integer of at least 0, not -1"),
        ("hvi", "iterations", 0, "hvi.iterations must be an integer of at least 1, not 0"),
        ("hvi", "step_size", 0.0, "hvi.step_size must be positive"),
        ("hvi", "step_size", float("inf"), "hvi.step_size must be positive and finite"),
    ],
)
def test_bad_configurations_are_named(section, field, value, message):
    config = hvi_mnist_fc.get_config()
    config[section][field] = value
    with pytest.raises(InputError, match=message):
        zoo.make(config)


def test_greys_are_refused():
    model = zoo.make(configuration(0))
    params = model.init(jax.random.key(0))
    with pytest.raises(InputError, match="bits"):
        model.bound(params, jax.random.key(1), {"image": 7 * images(2)})
