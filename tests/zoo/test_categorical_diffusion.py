"""The categorical system. At initialisation its U-Net says 0, so p̂(x_0 | x_t) is what x_t itself says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import masked_digits, uniform_digits
from diffjax import autoregressive, zoo
from diffjax.errors import InputError
from diffjax.evaluation import ngram
from diffjax.evaluation.bound import Bound
from diffjax.zoo.diffusion.categorical import as_classes, conditionals

SHAPE = (2, 2, 1)


def small(make=masked_digits, **fields):
    config = make.get_config()
    config.data.update(shape=SHAPE, levels=3)
    config.net.update(channels=4, multipliers=(1,), attention=(), class_features=2)
    config.sampling.steps = 4
    config.evaluation.num_terms = 20
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def masked():
    model = zoo.make(small())
    return model, jax.jit(model.init)(jax.random.key(0)), jax.jit(model.measure(Bound).terms)


X = np.random.default_rng(0).integers(0, 3, (500, *SHAPE)).astype(np.uint8)


def test_masked_places_of_a_network_that_says_nothing_cost_log_k(masked):
    """The integral's mean is D log K, with the variance of a number of masks."""
    _, params, terms = masked
    costs = terms(params, jax.random.key(1), X)
    np.testing.assert_allclose(costs["prior"], 0, atol=1e-5)
    found = np.asarray(costs["diffusion"], np.float64)
    assert abs(found.mean() - 4 * np.log(3)) < 5 * found.std() / 500**0.5


@pytest.mark.slow
def test_in_every_order_they_cost_the_same(masked):
    model, params, _ = masked
    x = jnp.asarray(X[:2], int).reshape(2, 4)
    log_p = autoregressive.log_prob(conditionals(model, params, SHAPE, (2, 0, 3, 1)), x)
    np.testing.assert_allclose(log_p, -4 * np.log(3), rtol=1e-5)


def test_the_loss_is_an_unbiased_estimate_of_the_bound(masked):
    """Of a network that says something, with evenly spread times."""
    model, params, terms = masked
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda p: (p + 0.3 * rng.normal(size=p.shape)).astype(np.float32), params)
    x = np.tile(X, (8, 1, 1, 1))
    t = (rng.permutation(len(x)) + 0.5).astype(np.float32) / len(x)
    loss = jax.jit(lambda params, key: model.loss(params, key, {"image": x, "t": t}))(params, jax.random.key(3))
    bits = sum(np.asarray(v, np.float64) for v in terms(params, jax.random.key(3), X).values()) / (4 * np.log(2))
    loss = np.asarray(loss, np.float64)
    assert loss.std() > 0.1 and abs(bits.mean() - np.log2(3)) > 0.05
    assert abs(loss.mean() - bits.mean()) < 5 * (loss.var() / len(loss) + bits.var() / len(bits)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps"), [("gaussian", 0), ("uniform", 20)])
def test_a_network_that_says_nothing_has_the_bound_of_independent_uniform_places(kind, steps):
    """p̂ is then the posterior of a uniform law, which the process reverses exactly: log K for each place."""
    chain = dict(num_steps=20, schedule="cosine") if steps else {}
    fields = {f"diffusion.{name}": value for name, value in dict(kind=kind, schedule="vp").items()}
    model = zoo.make(small(uniform_digits, **fields | {f"diffusion.{name}": v for name, v in chain.items()}))
    params = jax.jit(model.init)(jax.random.key(0))
    total = -np.asarray(jax.jit(model.bound)(params, jax.random.key(1), X), np.float64)
    assert abs(total.mean() - 4 * np.log(3)) < 5 * total.std() / 500**0.5 + 0.01
    loss = jax.jit(model.loss)(params, jax.random.split(jax.random.key(2), 500), {"image": X})
    error = (np.std(loss) ** 2 / 500 + 1e-4) ** 0.5
    assert abs(np.mean(loss) - np.log2(3)) < 5 * error


@pytest.mark.slow
def test_samples_are_levels_and_training_learns_two_arrays():
    import optax

    model = zoo.make(small(**{"net.channels": 8, "sampling.sampler": "first_hitting"}))
    params = jax.jit(model.init)(jax.random.key(0))
    two = np.array([[0, 1, 2, 2], [2, 0, 0, 1]], np.uint8).reshape(2, *SHAPE)
    x = jnp.tile(two, (16, 1, 1, 1))

    @jax.jit
    def train(params):
        tx = optax.adam(1e-2)

        def step(carry, key):
            params, state = carry
            grad = jax.grad(lambda p: model.loss(p, jax.random.split(key, 32), {"image": x}).mean())(params)
            updates, state = tx.update(grad, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), 250))[0][0]

    params = train(params)
    bits = -np.asarray(jax.jit(model.bound)(params, jax.random.key(2), x)) / np.log(2)
    assert 1 - 5 * bits.std() / 32**0.5 < bits.mean() < 1.25  # the truth is one bit for the two arrays
    samples = np.asarray(model.sample(params, jax.random.key(3), 100)) + 1
    assert np.mean([(s == two).all((1, 2, 3)).any() for s in samples]) > 0.9


def test_ngrams_are_those_of_the_formula():
    """Witten-Bell by hand: two arrays of three places in one column."""
    x = np.array([[0, 1, 1], [0, 1, 0]])[..., None]
    counts = ngram.fit(x, 2)
    # Unigram counts: 0 three times, 1 three times, two kinds. After 0: 1 twice. After 1: 1 once, 0 once.
    one = np.array([(3 + 2 / 4) / 8] * 2)
    after_0, after_1 = (2 + 1 * one[1]) / 3, (1 + 2 * one[1]) / 4
    want = np.log(one[0]) + np.log(after_0) + np.log(after_1)
    np.testing.assert_allclose(ngram.log_prob(counts, x[:1], 2, 4), [want], rtol=1e-12)
    every = np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T[..., None]
    np.testing.assert_allclose(np.exp(ngram.log_prob(counts, every, 2, 4)).sum(), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusion.schedule": "vp"}, r"diffusion.schedule='vp' never masks everything"),
        ({"diffusion.schedule": "ve"}, r"diffusion.schedule='ve' has no rate"),
        ({"diffusion.num_steps": 10, "diffusion.schedule": "cosine"}, "never masks everything"),
        ({"diffusion.kind": "absorbing"}, "diffusion.kind must be one of uniform, masked, gaussian"),
        ({"diffusion.num_steps": -1}, r"diffusion.num_steps=-1"),
        ({"sampling.sampler": "first_hitting", "sampling.steps": 3}, r"sampling.steps=3 leaves masks.*the 4 places"),
        ({"sampling.sampler": "remasking", "sampling.eta": 2.0}, r"sampling.eta=2.0"),
        ({"sampling.sampler": "ddim"}, "classes have no score"),
        ({"evaluation.num_terms": 0}, r"evaluation.num_terms=0"),
        ({"net.class_features": 0}, r"net.class_features=0"),
        ({"data.levels": 0}, r"data.levels=0"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        zoo.make(small(**change))


def test_levels_outside_the_alphabet_are_refused():
    for x in (np.array([0, 3], np.uint8), np.array([-1]), np.array([0.3, 1.0]), np.array([1.5])):
        with pytest.raises(InputError, match=r"none of data.levels=3 classes, 0 .. 2"):
            as_classes(x, 3)
    np.testing.assert_array_equal(as_classes(np.array([-1.0, 0.0, 1.0]), 3), [0, 1, 2])
