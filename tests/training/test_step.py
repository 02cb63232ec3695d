import jax
import jax.numpy as jnp
import numpy as np
import tiny
from tiny import System

from diffjax import randomness
from diffjax.memory import Memory, of_times
from diffjax.time_sampling import TimeSampler
from diffjax.training.config import TrainingConfig
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step


def remembers_losses(size):
    return Memory(lambda params: jnp.zeros(size), lambda *_: {}, lambda memory, key, params, batch, losses: losses)


def started(model, config, key=0):
    """The state before the first step, and the step."""
    tx = optimizer(config)
    return init_state(jax.random.key(key), model, tx), jax.jit(make_step(model, tx, config))


def test_flip_mirrors_half_of_the_images_in_width_only():
    """The loss tells whether an image, a ramp in both directions, was mirrored in width (1) or in height (10)."""
    size = 2000
    row, column = np.mgrid[:4, :6].astype(np.uint8)
    image = np.broadcast_to((row + 10 * column)[None, :, :, None], (size, 4, 6, 1))

    def loss(params, keys, batch):
        x = batch["image"].astype(float)[..., 0]
        return 1.0 * (x[:, 0, 0] > x[:, 0, -1]) + 10.0 * (x[:, 0, 0] > x[:, -1, 0]) + 0 * params

    model = System(lambda key: jnp.zeros(()), loss, remembers_losses(size))
    for flip in (True, False):
        state, step = started(model, TrainingConfig(flip=flip))
        mirrored = step(state, jax.random.key(0), {"image": image})[0].memory
        assert set(np.unique(mirrored)) == ({0.0, 1.0} if flip else {0.0})
        assert not flip or abs(float(mirrored.mean()) - 0.5) < 5 * 0.5 / np.sqrt(size)


def test_weights_enter_the_gradient_and_the_sampler_sees_unweighted_losses():
    times = jnp.linspace(0.1, 1.0, 8)
    spy = TimeSampler(
        lambda: jnp.zeros((2, 8)), lambda state, key, num: (times, 3 * times), lambda state, *seen: jnp.stack(seen)
    )
    model = System(
        lambda key: jnp.array(2.0), lambda params, keys, batch: params * batch["t"] * batch["x"], of_times(spy)
    )
    x = np.random.default_rng(0).normal(size=8).astype(np.float32)
    state, step = started(model, TrainingConfig(grad_clip=0.0))
    state, metrics = step(state, jax.random.key(0), {"x": x})
    t = np.linspace(0.1, 1.0, 8)
    np.testing.assert_allclose(state.memory, [t, 2 * t * x], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(3 * t * 2 * t * x), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], abs(np.mean(3 * t * t * x)), rtol=1e-5)


def test_randomness_belongs_to_the_example_and_changes_with_step_and_key():
    """The loss is what an example draws and one of its pixels, which tells whether it was mirrored."""

    def loss(params, keys, batch):
        return randomness.normal(keys, (len(batch["image"]),)) + batch["image"][:, 0, 0, 0] + params

    def draws(size, images, key=0, after=0):
        state = states[size]._replace(step=jnp.array(after))
        return np.asarray(steps[size](state, jax.random.key(key), {"image": images})[0].memory)

    config, images = TrainingConfig(flip=True), tiny.batch_of_step(0)["image"]
    states, steps = {}, {}
    for size in (8, 16):
        states[size], steps[size] = started(System(lambda key: jnp.zeros(()), loss, remembers_losses(size)), config)
    now = draws(16, images)
    np.testing.assert_allclose(now[:8], draws(8, images[:8]), rtol=1e-6)
    assert np.all(np.abs(now - draws(16, images, key=1)) > 1e-3)

    same = np.repeat(images[:1], 16, axis=0)
    now = draws(16, same)
    assert np.unique(now).size == 16
    assert np.all(np.abs(now - draws(16, same, after=1)) > 1e-3)
