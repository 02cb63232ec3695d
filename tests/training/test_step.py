import jax
import jax.numpy as jnp
import numpy as np
import tiny

from diffjax.time_sampling import TimeSampler
from diffjax.training.config import TrainingConfig
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step


class Ramp:
    """The loss of an example tells whether its image (a ramp from left to right) was mirrored: 0 or 1."""

    @staticmethod
    def init(key):
        return jnp.zeros(())

    @staticmethod
    def loss(params, key, batch):
        return (batch["image"][:, 0, 0, 0] > batch["image"][:, 0, -1, 0]).astype(float) + 0 * params


def spy(size):
    """A sampler of fixed times and weights whose state after a step is the losses it was shown."""
    t = jnp.linspace(0.1, 1.0, size)
    return TimeSampler(lambda: jnp.zeros(size), lambda state, key, num: (t, 3 * t), lambda state, t, losses: losses)


def run(model, config, batch, sampler, key=0):
    tx = optimizer(config)
    state = init_state(jax.random.key(0), model, tx, sampler)
    return jax.jit(make_step(model, tx, config, time_sampler=sampler))(state, jax.random.key(key), batch)


def test_flip_mirrors_half_of_the_images_in_width_only():
    size = 2000
    image = np.broadcast_to(np.arange(6, dtype=np.uint8)[None, None, :, None], (size, 4, 6, 1))
    state, _ = run(Ramp, TrainingConfig(flip=True), {"image": image}, spy(size))
    assert set(np.unique(state.times)) == {0.0, 1.0}
    assert abs(float(state.times.mean()) - 0.5) < 5 * 0.5 / np.sqrt(size)
    upright = np.broadcast_to(np.arange(6, dtype=np.uint8)[None, :, None, None], (size, 6, 4, 1))
    assert not run(Ramp, TrainingConfig(flip=True), {"image": upright}, spy(size))[0].times.any()
    assert not run(Ramp, TrainingConfig(flip=False), {"image": image}, spy(size))[0].times.any()


def test_weights_enter_the_gradient_and_the_sampler_sees_unweighted_losses():
    class Linear:
        @staticmethod
        def init(key):
            return jnp.array(2.0)

        @staticmethod
        def loss(params, key, batch):
            return params * batch["t"] * batch["x"]

    x = np.random.default_rng(0).normal(size=8).astype(np.float32)
    state, metrics = run(Linear, TrainingConfig(grad_clip=0.0), {"x": x}, spy(8))
    t = np.linspace(0.1, 1.0, 8)
    np.testing.assert_allclose(state.times, 2 * t * x, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(3 * t * 2 * t * x), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], abs(np.mean(3 * t * t * x)), rtol=1e-5)


def test_randomness_belongs_to_the_example_and_changes_with_step_and_key():
    config = TrainingConfig(flip=True)
    batch = tiny.batch_of_step(0, 16)
    half = {name: x[:8] for name, x in batch.items()}
    fixed = TimeSampler(lambda: (), lambda state, key, num: (jnp.full(num, 0.5), jnp.ones(num)), lambda *losses: losses)
    everything = run(tiny.model, config, batch, fixed)[0].times[2]
    first_half = run(tiny.model, config, half, fixed)[0].times[2]
    np.testing.assert_allclose(everything[:8], first_half, rtol=1e-6)
    other_key = run(tiny.model, config, batch, fixed, key=1)[0].times[2]
    assert np.all(np.abs(everything - other_key) > 1e-3)

    same = {name: np.repeat(x[:1], 16, axis=0) for name, x in batch.items()}
    tx = optimizer(config)
    step = jax.jit(make_step(tiny.model, tx, config, time_sampler=spy(16)))
    state = init_state(jax.random.key(0), tiny.model, tx, spy(16))
    now = step(state, jax.random.key(0), same)[0].times
    later = step(state._replace(step=state.step + 1), jax.random.key(0), same)[0].times
    assert np.unique(now).size == 16
    assert np.all(np.abs(now - later) > 1e-3)
