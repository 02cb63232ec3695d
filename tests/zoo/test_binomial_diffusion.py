"""Binomial diffusion of heartbeats, against the enumeration of everything its kernels can know (heartbeats.py)."""

import heartbeats
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sohl_dickstein_heartbeat
from diffjax import bounds, predictions, processes, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound

BITS = 1 / np.log(2)


def small(num_steps=20, **diffusion):
    config = sohl_dickstein_heartbeat.get_config()
    config.net.update(features=(8,), num_knots=5)
    config.diffusion.update(num_steps=num_steps, **diffusion)
    config.sampling.steps = num_steps
    return config


def data(n, seed=0):
    phase = np.random.default_rng(seed).integers(0, 5, n)
    return (np.arange(20) % 5 == phase[:, None]).astype(np.uint8)


def exact(num_steps, r=0.2):
    """The Predict that knows the phase's posterior."""

    def logits(xt, t):
        step = jnp.round(t * num_steps)
        keep = 1 - step / num_steps
        on, off = keep + (1 - keep) * r, (1 - keep) * r
        place = jnp.arange(20)[:, None] % 5 == jnp.arange(5)
        ratio = jnp.where(xt > 0, jnp.log(on / off)[:, None], jnp.log((1 - on) / (1 - off))[:, None])
        phase = jax.nn.log_softmax(jnp.where(place, ratio[..., None], 0.0).sum(1), -1)
        beat = phase[:, jnp.arange(20) % 5]
        return beat - jnp.log(-jnp.expm1(jnp.minimum(beat, -1e-7)))

    return predictions.logits(logits)


@pytest.mark.slow
@pytest.mark.parametrize("edge", ["learned", "fixed"])
def test_the_bound_of_the_exact_posterior_is_the_enumerated_optimum(edge):
    num_steps = 20
    process = processes.binomial(1 / np.arange(num_steps, 0, -1), 0.2)
    x0 = jnp.asarray(data(20_000), float)
    best = exact(num_steps)

    def predict(xt, t):
        if edge == "learned":
            return best(xt, t)
        fixed = process.transition(xt, 0.0, t).logits
        return predictions.Prediction(jnp.where((t < 1.5 / num_steps)[:, None], fixed, best(xt, t).value), "logits")

    terms = jax.jit(lambda key: bounds.diffusion(process, predict, key, x0, process.schedule.times))(jax.random.key(0))
    k = -np.asarray(terms.total) * BITS
    assert abs(k.mean() - heartbeats.best_bound(num_steps, 0.2, edge)) < 5 * k.std() / len(k) ** 0.5


@pytest.mark.slow
def test_the_optimum_nears_the_entropy_as_the_chain_grows():
    gaps = [np.log2(1 / 5) - heartbeats.best_bound(n, 0.2, "learned") for n in (20, 40, 80, 160)]
    assert all(gap > 0 for gap in gaps)
    orders = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert (orders > 0.7).all()  # first order in the length of the steps, log factors aside
    assert heartbeats.best_bound(2000, 0.2, "learned") > -2.3245


def test_the_null_is_independent_bits_of_the_prior():
    model = zoo.make(small())
    np.testing.assert_allclose(model.measure(Bound).null(data(50)), 4 * np.log(0.2) + 16 * np.log(0.8), rtol=1e-6)


@pytest.mark.slow
def test_training_approaches_the_optimum_and_never_passes_it():
    num_steps = 20
    config = small()
    config.net.update(features=(50,), num_knots=21)
    model = zoo.make(config)
    params = jax.jit(model.init)(jax.random.key(0))
    x = data(1000)

    @jax.jit
    def train(params):
        import optax

        tx = optax.adam(1e-2)

        def step(carry, key):
            params, state = carry
            value, grad = jax.value_and_grad(lambda p: model.loss(p, key, x).mean())(params)
            updates, state = tx.update(grad, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), 300))

    (params, _), losses = train(params)
    k = np.asarray(jax.jit(model.bound)(params, jax.random.key(2), data(10_000, 1))) * BITS
    best, error = heartbeats.best_bound(num_steps, 0.2, "learned"), k.std() / len(k) ** 0.5
    assert best - 0.5 < k.mean() < best + 5 * error
    # The loss is the same bound, in bits per dimension, from one step of the chain for each example.
    tail = np.asarray(losses[-50:]) * 20
    assert abs(-tail.mean() - k.mean()) < 0.2
    samples = np.asarray(model.sample(params, jax.random.key(3), 500))
    assert set(np.unique(samples)) == {0.0, 1.0}
    assert np.mean([any((s == d).all() for d in data(100)) for s in samples]) > 0.8


def test_times_drawn_by_their_losses_are_those_of_the_steps_that_are_learned():
    """A fixed edge leaves steps 2 .. T. p_t ∝ √E[L_t²], with a thousandth of uniform; weights are 1/(n p_t)."""
    memory = zoo.make(small(6, edge="fixed", time_sampling="loss_aware")).memory
    steps = np.arange(2, 7)
    size = np.where(steps == 3, 6.0, 1.0)
    state = memory.init(None)
    for _ in range(10):
        state = memory.update(state, None, None, {"t": jnp.asarray(steps / 6)}, jnp.asarray(size))
    drawn = memory.draw(state, jax.random.key(0), 10_000)
    p = 0.999 * size / size.sum() + 0.001 / 5
    number = (np.round(np.asarray(drawn["t"]) * 6)[:, None] == steps).sum(0)
    assert number.sum() == 10_000
    assert (np.abs(number / 10_000 - p) < 5 * np.sqrt(p * (1 - p) / 10_000)).all()
    np.testing.assert_allclose(drawn["weight"], 1 / (5 * p[np.round(drawn["t"] * 6).astype(int) - 2]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(prior=1.0), "prior probability must be in"),
        (dict(edge="open"), "diffusion.edge"),
        (dict(time_sampling="loss"), "diffusion.time_sampling"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        zoo.make(small(**change))


def test_what_is_not_bits_is_refused():
    config = small()
    config.data.levels = 17
    with pytest.raises(InputError, match=r"data\.levels=2"):
        zoo.make(config)
    model = zoo.make(small())
    with pytest.raises(InputError, match="other than 0 and 1"):
        model.bound(jax.jit(model.init)(jax.random.key(0)), jax.random.key(0), 2 * data(4))
    with pytest.raises(InputError, match="other than 0 and 1"):
        model.measure(Bound).null(0.5 * data(4))
    config = small()
    config.sampling.steps = 10
    with pytest.raises(InputError, match=r"sampling\.steps"):
        zoo.make(config)
