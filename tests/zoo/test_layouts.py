"""Ten training steps of DDPM, dropout and loss-aware times included, are the same however devices share them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from diffjax import data, zoo
from diffjax.training.config import training_config
from diffjax.training.loop import abstract_state
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step

pytestmark = pytest.mark.slow
DATA, MODEL, BOTH = (("data", -1), ("model", 1)), (("data", 1), ("model", -1)), (("data", 2), ("model", 4))


def losses_of(mode="jit", devices=8, mesh=DATA, net=None, **training):
    config = digits.get_config()
    config.net.update(channels=16, multipliers=(1,), num_blocks=1, attention=(), dropout=0.2, **(net or {}))
    config.diffusion.update(num_steps=5, betas=(0.01, 0.5), time_sampling="loss_aware", loss="vlb")
    config.sampling.steps = 5
    config.training.update(batch_size=16, flip=True, **training)
    settings = training_config(config.training)
    model, tx = zoo.make(config), optimizer(settings)
    step = make_step(model, tx, settings)
    layout = parallelize(step, mode, jax.devices()[:devices], mesh)
    wanted = abstract_state(layout, model, settings)
    shardings = jax.tree.map(lambda x: x.sharding, wanted)
    init = jax.jit(lambda key: init_state(key, model, tx), out_shardings=shardings)
    state = layout.place_state(init(jax.random.key(0)))
    batches = data.batches(data.load(config.data, "train"), 16, seed=0)
    losses = []
    for _ in range(10):
        state, metrics = layout.run(state, jax.random.key(1), layout.place_batch(next(batches)))
        losses.append(float(metrics["loss"]))
    return np.array(losses), layout.fetch_state(state)


@pytest.fixture(scope="module")
def one_device():
    return losses_of(devices=1)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"mode": "pmap", "accumulate": 2},
        {"mesh": MODEL, "net": {"remat": True}},
        {"mesh": BOTH, "accumulate": 2},
    ],
    ids=str,
)
def test_a_layout_changes_nothing(how, one_device):
    losses, state = losses_of(**how)
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    history, expected = (jax.device_get(s.memory) for s in (state, one_device[1]))
    assert (history.seen == expected.seen).all()
    assert history.seen.sum() == 160
    np.testing.assert_allclose(history.losses, expected.losses, rtol=1e-4, atol=1e-5)
    divided = [x for x in jax.tree.leaves((state.params, state.ema, state.opt_state)) if x.size >= 2**10]
    parts = dict(how.get("mesh", DATA))["model"] % 9  # -1 is all eight
    assert len(divided) > 20
    for x in divided:
        held = {str(shard.index) for shard in x.addressable_shards}
        assert len(held) == parts and all(s.data.size * parts == x.size for s in x.addressable_shards)


def test_bfloat16_learns_what_float32_learns(one_device):
    """Activations have 8 bits of mantissa: losses within a few times 2^-8, parameters still of 24."""
    losses, state = losses_of(mesh=BOTH, net={"dtype": "bfloat16"})
    np.testing.assert_allclose(losses, one_device[0], rtol=0.05)
    assert np.abs(losses / one_device[0] - 1).max() > 2e-6  # it is another precision
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
