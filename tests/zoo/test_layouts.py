"""Ten training steps of DDPM, dropout and loss-aware times included, are the same on one device, on eight, by pmap."""

import jax
import numpy as np
import pytest

from configs import digits
from diffjax import data, zoo
from diffjax.training.config import training_config
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step


def losses_of(mode, devices):
    config = digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=(8,), dropout=0.2)
    config.diffusion.update(num_steps=5, betas=(0.01, 0.5), time_sampling="loss_aware", loss="vlb")
    config.sampling.steps = 5
    config.training.update(batch_size=16, flip=True)
    settings = training_config(config.training)
    model, tx = zoo.make(config), optimizer(training_config(config.training))
    layout = parallelize(make_step(model, tx, settings, time_sampler=model.time_sampler), mode, jax.devices()[:devices])
    state = layout.place_state(jax.jit(lambda key: init_state(key, model, tx, model.time_sampler))(jax.random.key(0)))
    batches = data.batches(data.load(config.data, "train"), 16, seed=0)
    losses = []
    for _ in range(10):
        state, metrics = layout.run(state, jax.random.key(1), layout.place_batch(next(batches)))
        losses.append(float(metrics["loss"]))
    return np.array(losses), jax.device_get(layout.fetch_state(state).times)


@pytest.fixture(scope="module")
def one_device():
    return losses_of("jit", 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_layout_changes_nothing(mode, one_device):
    losses, history = losses_of(mode, 8)
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    assert (history.seen == one_device[1].seen).all()
    assert history.seen.sum() == 160
    np.testing.assert_allclose(history.losses, one_device[1].losses, rtol=1e-4, atol=1e-5)
