import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.training.checkpoint import Checkpointer, abstract
from diffjax.training.state import TrainState


def on(devices):
    return NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("data",)), P())


def make_state(value, devices=1, times=()):
    params = {"w": jnp.arange(6.0).reshape(2, 3) + value, "b": jnp.full(3, value, jnp.bfloat16)}
    state = TrainState(jnp.array(int(value), jnp.int32), params, params, optax.adam(1e-3).init(params), times)
    return jax.device_put(state, on(devices))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("times", [None, (), jnp.arange(4.0)])
def test_what_was_saved_on_8_devices_comes_back_on_4(tmp_path, times):
    state = make_state(3.0, 8, times)
    meta = {"config": {"training": {"learning_rate": 2e-4}}, "examples_seen": 384}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state, meta)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        restored, restored_meta = checkpointer.restore(abstract(state, on(4)))
    assert_same(restored, state)
    assert restored_meta == meta
    assert restored.params["w"].sharding == on(4)


def test_the_last_two_and_every_keep_every_stay(tmp_path):
    with Checkpointer(tmp_path, keep_every=4) as checkpointer:
        assert checkpointer.latest_step() is None
        for step in range(1, 12):
            checkpointer.save(step, make_state(step), {"step": step})
    with Checkpointer(tmp_path, keep_every=4) as checkpointer:
        assert checkpointer.steps() == [4, 8, 10, 11]
        assert checkpointer.latest_step() == 11
        for step in checkpointer.steps():
            state, meta = checkpointer.restore(abstract(make_state(0), on(1)), step)
            assert_same(state, make_state(step))
            assert meta == {"step": step}


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """The background write must not see what later steps put into the same memory."""
    state = jax.device_put({"w": jnp.arange(2_000_000.0)}, on(8))
    scramble = jax.jit(lambda s: {"w": jnp.cos(s["w"])}, donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
        for _ in range(20):
            state = scramble(state)
        jax.block_until_ready(state)
        checkpointer.wait()
        restored, _ = checkpointer.restore(abstract(state, on(8)), 1)
    np.testing.assert_array_equal(restored["w"], np.arange(2_000_000.0, dtype=np.float32))


def test_half_written_checkpoints_are_ignored_and_removed_by_the_next_writer(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", half)
    (half / "_CHECKPOINT_METADATA").unlink()
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == [1]
    assert half.exists()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1]
        checkpointer.save(2, make_state(2), {})
        checkpointer.wait()
        assert not half.exists()
        assert_same(checkpointer.restore(abstract(make_state(0), on(1)))[0], make_state(2))


def test_a_step_which_is_not_there_is_refused_with_those_which_are(tmp_path):
    wanted = abstract(make_state(0), on(1))
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(InputError, match="there are none"):
            checkpointer.restore(wanted)
        for step in (2, 5):
            checkpointer.save(step, make_state(step), {})
        checkpointer.wait()
        with pytest.raises(InputError, match=r"no checkpoint of step 3 in .*the steps there are 2, 5"):
            checkpointer.restore(wanted, 3)
    with pytest.raises(InputError, match="no such directory"):
        Checkpointer(tmp_path / "nowhere", read_only=True)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    state = make_state(1)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
        checkpointer.wait()
        wider = state._replace(params={**state.params, "w": jnp.zeros((2, 4))})
        with pytest.raises(InputError, match=r"params/w is float32\[2, 3\] in the checkpoint and float32\[2, 4\]"):
            checkpointer.restore(abstract(wider, on(1)))
        more = state._replace(ema={**state.ema, "c": jnp.zeros(1)})
        with pytest.raises(InputError, match=r"ema/c is absent in the checkpoint"):
            checkpointer.restore(abstract(more, on(1)))
