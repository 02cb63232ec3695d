import functools

import jax
import numpy as np
import pytest
import tiny

from diffjax.errors import InputError
from diffjax.training.config import training_config
from diffjax.training.sharding import check_batch_size, parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step

STEPS = 12


@functools.cache
def trained(mode, devices):
    config = training_config({**tiny.CONFIG, "flip": True})
    tx = optimizer(config)
    layout = parallelize(make_step(tiny.denoiser, tx, config), mode, jax.devices()[:devices])
    state = layout.place_state(init_state(jax.random.key(0), tiny.denoiser, tx))
    metrics = []
    for n in range(1, STEPS + 1):
        state, step_metrics = layout.run(state, jax.random.key(1), layout.place_batch(tiny.batch_of_step(n)))
        metrics.append(step_metrics)
    return layout, layout.fetch_state(state), jax.device_get(metrics)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "devices"), [("jit", 8), ("pmap", 8), ("pmap", 1)])
def test_every_layout_takes_the_same_steps(mode, devices):
    """Dropout, noise, flips and the time sampler included; what remains is the order of summation."""
    _, expected, expected_metrics = trained("jit", 1)
    layout, state, metrics = trained(mode, devices)
    for name in ("loss", "grad_norm", "learning_rate"):
        np.testing.assert_allclose([m[name] for m in metrics], [m[name] for m in expected_metrics], rtol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert got.sharding.is_equivalent_to(layout.shardings(got), got.ndim)
        assert len(got.addressable_shards) == devices
        scale = np.max(np.abs(want))
        for shard in got.addressable_shards:
            np.testing.assert_allclose(shard.data, want, rtol=0, atol=2e-6 * scale)


@pytest.mark.slow
def test_the_steps_did_train_and_the_sampler_did_learn():
    _, state, metrics = trained("jit", 1)
    losses = [m["loss"] for m in metrics]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert np.ptp(state.memory) > 0.1


@pytest.mark.fast(1)
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_placing_and_fetching_give_the_state_back(mode):
    layout, state, _ = trained(mode, 8)
    for before, after in zip(
        jax.tree.leaves(state), jax.tree.leaves(layout.fetch_state(layout.place_state(state))), strict=True
    ):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == before.dtype


@pytest.mark.fast(1)
@pytest.mark.parametrize(("size", "nearest"), [(20, "16 or 24"), (5, "sizes are 8")])
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_batch_which_cannot_be_shared_is_refused(mode, size, nearest):
    layout, _, _ = trained(mode, 8)
    with pytest.raises(InputError, match=rf"{size} cannot be divided equally between 8 devices.*{nearest}"):
        layout.place_batch(tiny.batch_of_step(0, size))
    check_batch_size(16, 8)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match="'jit' or 'pmap'"):
        parallelize(lambda *args: args, "threads")
