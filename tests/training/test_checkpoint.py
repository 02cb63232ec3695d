import json
import pickle
import re
import resource
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.nets import published
from diffjax.nets.published import from_ddpm
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.state import TrainState


def abstract(state, sharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def on(devices):
    return NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("data",)), P())


def make_state(value, devices=1, memory=()):
    params = {"w": jnp.arange(6.0).reshape(2, 3) + value, "b": jnp.full(3, value, jnp.bfloat16)}
    state = TrainState(jnp.array(int(value), jnp.int32), params, params, optax.adam(1e-3).init(params), memory)
    return jax.device_put(state, on(devices))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


MEMORIES = [None, (), {"losses": jnp.arange(4.0), "seen": jnp.arange(3)}]


@pytest.mark.parametrize("memory", MEMORIES, ids=["None", "empty", "arrays"])
def test_what_was_saved_on_8_devices_comes_back_on_4(tmp_path, memory):
    state = make_state(3.0, 8, memory)
    meta = {"config": {"training": {"learning_rate": 2e-4}}, "examples_seen": 384}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state, meta)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        restored, restored_meta = checkpointer.restore(abstract(state, on(4)))
    assert_same(restored, state)
    assert restored_meta == meta
    assert restored.params["w"].sharding == on(4)


def test_what_was_saved_with_a_mean_of_16_bits_becomes_float32(tmp_path):
    """As runs of 16-bit parameters once were. The parameters themselves must have the type they are wanted in."""
    model = {"w": jnp.full((2, 3), 1.0078125, jnp.bfloat16), "b": jnp.full(3, -3.0, jnp.float16)}
    old = TrainState(jnp.array(1), model, model, optax.adam(1e-3).init(model), None)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), model)
    new = old._replace(ema=wide, opt_state=optax.adam(1e-3).init(wide))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, old, {})
        restored, _ = checkpointer.restore(abstract(new, on(4)))
        assert_same(restored, new)
        assert restored.ema["w"].sharding == on(4)
        for wrong in (new._replace(params=wide), new._replace(ema=jax.tree.map(lambda x: x.astype(int), wide))):
            with pytest.raises(InputError, match=r"(params|ema)/b is float16\[3\] in the checkpoint and"):
                checkpointer.restore(abstract(wrong, on(1)))


class OldState(NamedTuple):
    """The state as it was when its memory was called "times" and it had no averages but one."""

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    times: Any


@pytest.mark.parametrize("memory", MEMORIES, ids=["None", "empty", "arrays"])
def test_what_was_saved_when_the_memory_was_called_times_comes_back(tmp_path, memory):
    """And goes on under the new name; it is verified under the old one, and refused where it does not fit."""
    state = make_state(3.0, 8, memory)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, OldState(*state[:5]), {"step": 3})
        checkpointer.wait()
        metadata = tmp_path / "3" / "meta" / "metadata"
        written = json.loads(metadata.read_text())["state_checksums"]
        restored, _ = checkpointer.restore(abstract(state, on(4)))
        assert_same(restored, state)
        if isinstance(memory, dict):
            assert {name for name in written if "/" in name} >= {"times/losses", "times/seen"}
            checkpointer.save(4, restored, {"step": 4})
            assert_same(checkpointer.restore(abstract(state, on(1)), 4)[0], state)
            longer = state._replace(memory=memory | {"losses": jnp.zeros(5)})
            with pytest.raises(InputError, match=r"memory/losses is float32\[4\] in the checkpoint and float32\[5\]"):
                checkpointer.restore(abstract(longer, on(1)), 3)
            with pytest.raises(InputError, match=r"averages/0/b is absent in the checkpoint and bfloat16\[3\] in the"):
                checkpointer.restore(abstract(state._replace(averages=(state.params,)), on(1)), 3)
            metadata.write_text(metadata.read_text().replace('"times/seen": [', '"times/seen": [1'))
            with pytest.raises(InputError, match="memory/seen differs from its checksum"):
                checkpointer.restore(abstract(state, on(1)), 3)


def test_meta_is_strict_json(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), {"a": float("nan"), "b": [float("inf"), 1.5]})
        _, meta = checkpointer.restore(abstract(make_state(1), on(1)))
    assert meta == {"a": None, "b": [None, 1.5]}
    text = (tmp_path / "1" / "meta" / "metadata").read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["meta"] == meta


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


@pytest.mark.slow
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


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def save_steps(directory, *steps, devices=1):
    with Checkpointer(directory) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step, devices), {"step": step, "rate": 2e-4, "list": (1, 2)})


def flip_stored_value(checkpoint):
    """Another value of params/w, written as orbax writes it: nothing but a checksum can tell."""
    with Checkpointer(checkpoint.parent / "other") as checkpointer:
        state = make_state(2)
        w = state.params["w"].at[1, 1].add(1.0)
        checkpointer.save(2, state._replace(params={**state.params, "w": w}), {})
    shutil.rmtree(checkpoint / "state")
    shutil.move(checkpoint.parent / "other" / "2" / "state", checkpoint / "state")
    shutil.rmtree(checkpoint.parent / "other")


def rewrite(name, change):
    def damage(checkpoint):
        path = checkpoint / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def without_step(metadata):
    tree = json.loads(metadata)
    del tree["tree_metadata"]["('step',)"]
    return json.dumps(tree).encode()


def truncate_largest(checkpoint):
    path = max(files_of(checkpoint), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def keep_only_metadata(checkpoint):
    shutil.rmtree(checkpoint / "state")
    shutil.rmtree(checkpoint / "meta")


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


DAMAGES = {
    "value": (flip_stored_value, r"params/w differs from its checksum"),
    "meta": (
        rewrite("meta/metadata", lambda x: x.replace(b"0.0002", b"0.0003")),
        r"its meta differs from its checksum",
    ),
    "name in meta": (rewrite("meta/metadata", lambda x: x.replace(b"state_c", b"stateOc")), r"its meta differs from"),
    "checksum": (
        rewrite("meta/metadata", lambda x: x.replace(b'"params/w": [', b'"params/w": [1')),
        r"params/w differs from its checksum",
    ),
    "meta is a list": (rewrite("meta/metadata", lambda x: b"[]"), r"its meta is not what was written"),
    "meta is empty": (rewrite("meta/metadata", lambda x: b""), r"Expecting value"),
    "a leaf": (rewrite("state/_METADATA", without_step), r"its metadata does not fit the configuration"),
    "name": (
        rewrite("state/_METADATA", lambda x: x.replace(b'"w"', b'"v"').replace(b"'w'", b"'v'")),
        r"cannot be read",
    ),
    "metadata": (rewrite("state/_METADATA", lambda x: x[:-40]), r""),
    "truncated": (truncate_largest, r""),
    "no state": (lambda path: shutil.rmtree(path / "state"), r""),
    "no meta": (lambda path: shutil.rmtree(path / "meta"), r""),
    "neither": (keep_only_metadata, r""),
    "empty": (empty, r""),
}


@pytest.mark.parametrize("damage, says", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, capfd, damage, says):
    """By a reader it is left where it is, and then moved by a writer."""
    directory = tmp_path / "checkpoints"
    save_steps(directory, 1, 2)
    damage(directory / "2")
    there = [path.relative_to(directory / "2") for path in files_of(directory / "2")]
    wanted = abstract(make_state(0), on(1))
    aside = tmp_path / "checkpoints-damaged" / "2"
    for read_only in (True, False):
        with Checkpointer(directory, read_only=read_only) as checkpointer:
            assert checkpointer.latest_step() == 2
            with pytest.raises(
                InputError, match=r"checkpoint 2 in .* (is damaged .* nothing was deleted|does not fit)"
            ):
                checkpointer.restore(wanted, 2)
            state, meta = checkpointer.restore(wanted)
            assert checkpointer.latest_step() == 1
        assert_same(state, make_state(1))
        assert meta == {"step": 1, "rate": 2e-4, "list": [1, 2]}
        place = "it is left where it is" if read_only else f"it was moved to {re.escape(str(aside))}"
        (line,) = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
        assert re.fullmatch(
            rf"warning: checkpoint 2 in .* is damaged \(.*{says}.*\); {place}, and checkpoint 1 .*", line
        )
        assert aside.exists() != read_only
        kept = directory / "2" if read_only else aside
        assert [path.relative_to(kept) for path in files_of(kept)] == there


def test_the_step_is_saved_again_and_a_second_damage_finds_a_place_too(tmp_path):
    directory = tmp_path / "checkpoints"
    save_steps(directory, 1, 2)
    for _ in range(2):
        truncate_largest(directory / "2")
        with Checkpointer(directory) as checkpointer:
            _, meta = checkpointer.restore(abstract(make_state(0), on(1)))
            assert meta["step"] == 1
            checkpointer.save(2, make_state(2), meta | {"step": 2})
            checkpointer.wait()
            assert checkpointer.steps() == [1, 2]
            assert_same(checkpointer.restore(abstract(make_state(0), on(1)))[0], make_state(2))
    assert sorted(path.name for path in (tmp_path / "checkpoints-damaged").iterdir()) == ["2", "2-1"]


def test_when_all_are_damaged_nothing_is_moved_and_nothing_begins_anew(tmp_path):
    save_steps(tmp_path / "run", 1, 2)
    truncate_largest(tmp_path / "run" / "1")
    empty(tmp_path / "run" / "2")
    with Checkpointer(tmp_path / "run") as checkpointer:
        with pytest.raises(InputError, match=r"every checkpoint in .*run is damaged \(2: .*1: .*nothing was deleted"):
            checkpointer.restore(abstract(make_state(0), on(1)))
        assert checkpointer.steps() == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_another_network_moves_nothing_even_where_a_checkpoint_is_damaged(tmp_path):
    save_steps(tmp_path / "run", 1, 2)
    empty(tmp_path / "run" / "2")
    state = make_state(0)
    other = state._replace(params={**state.params, "w": jnp.zeros((2, 4))})
    misfit = pytest.raises(InputError, match=r"checkpoint 1 .*does not fit this configuration: params/w")
    with Checkpointer(tmp_path / "run") as checkpointer, misfit:
        checkpointer.restore(abstract(other, on(1)))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_checkpoints_from_before_there_were_checksums_are_restored(tmp_path, capfd):
    meta = {"step": 1, "config": {"training": {"seed": 0}}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, make_state(1), {})
    (tmp_path / "1" / "meta" / "metadata").write_text(json.dumps(meta))
    with Checkpointer(tmp_path) as checkpointer:
        state, read = checkpointer.restore(abstract(make_state(0), on(1)))
    assert_same(state, make_state(1))
    assert read == meta
    assert "damaged" not in capfd.readouterr().err


def test_strange_directories_and_files_stop_nobody(tmp_path, capfd):
    save_steps(tmp_path, 1, 2)
    for name in ("5", "9.orbax-checkpoint-tmp", "9.orbax-checkpoint-tmp-123", "straydir", "-3", "0004", "4.5", "²"):
        (tmp_path / name).mkdir()
    for name in ("7/x", "8", "stray", "10.orbax-checkpoint-tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("?")
    wanted = abstract(make_state(0), on(1))
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert_same(checkpointer.restore(wanted)[0], make_state(2))
        assert checkpointer.latest_step() == 2
    assert (tmp_path / "9.orbax-checkpoint-tmp-123").exists()
    with Checkpointer(tmp_path) as checkpointer:
        assert not list(tmp_path.glob("*.orbax*"))
        assert_same(checkpointer.restore(wanted)[0], make_state(2))
        for step in (5, 9, 10):
            checkpointer.save(step, make_state(step), {})
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [9, 10]
        assert_same(checkpointer.restore(wanted)[0], make_state(10))
    with pytest.raises(InputError, match=r"checkpoints cannot be kept in .*stray: File exists; choose another"):
        Checkpointer(tmp_path / "stray")


@pytest.mark.parametrize("finish", ["save", "wait", "close"])
def test_what_cannot_be_written_is_said_once_and_the_earlier_ones_stay(tmp_path, finish):
    """A limit on the size of files stands for a full disk, which takes root to make."""
    save_steps(tmp_path, 1, 2)
    big = {"w": jax.random.normal(jax.random.key(0), (500_000,))}
    checkpointer = Checkpointer(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(
            InputError,
            match=rf"checkpoint of step 3 could not be written to {re.escape(str(tmp_path))}: File too large; "
            r"the earlier checkpoints \(steps 1, 2\) are kept; put that right and start again",
        ):
            checkpointer.save(3, big, {})
            checkpointer.save(4, big, {}) if finish == "save" else getattr(checkpointer, finish)()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    checkpointer.close()
    assert checkpointer.steps() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with Checkpointer(tmp_path) as checkpointer:
        assert_same(checkpointer.restore(abstract(make_state(0), on(1)))[0], make_state(2))


def test_saved_in_parts_on_8_devices_it_comes_back_on_4_and_on_1(tmp_path, capfd):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    state = {
        "w": jax.device_put(jnp.arange(96.0).reshape(8, 12), NamedSharding(mesh, P("data", "fsdp"))),
        "b": jax.device_put(jnp.arange(16, dtype=jnp.bfloat16), NamedSharding(mesh, P(("data", "fsdp")))),
    }
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
    for devices in (4, 1):
        parts = NamedSharding(on(devices).mesh, P("data"))
        wanted = abstract(state, parts)
        with Checkpointer(tmp_path, read_only=True) as checkpointer:
            restored, _ = checkpointer.restore(wanted, 1)
        for name in state:
            assert restored[name].sharding == parts
            np.testing.assert_array_equal(restored[name], state[name])
    # And they were verified: the same files with another checksum are refused.
    rewrite("1/meta/metadata", lambda x: x.replace(b'"b": [', b'"b": [1'))(tmp_path)
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(InputError, match="1: b differs from its checksum"):
        checkpointer.restore(wanted)


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_in_place_of_any_file_is_not_executed(tmp_path):
    directory, marker = tmp_path / "checkpoints", tmp_path / "executed"
    bomb = pickle.dumps(Bomb(marker))
    pickle.loads(bomb)
    assert marker.exists()  # it would
    marker.unlink()
    save_steps(directory, 1, 2)
    wanted = abstract(make_state(0), on(1))
    outcomes = {}
    for path in files_of(directory / "2"):
        whole = path.read_bytes()
        path.write_bytes(bomb)
        with Checkpointer(directory, read_only=True) as checkpointer:
            state, meta = checkpointer.restore(wanted)
        assert not marker.exists(), path
        assert_same(state, make_state(meta["step"]))
        outcomes[str(path.relative_to(directory / "2"))] = meta["step"]
        path.write_bytes(whole)
    assert outcomes["meta/metadata"] == outcomes["state/_METADATA"] == outcomes["state/manifest.ocdbt"] == 1  # noticed


def test_published_weights_are_not_executed_either(tmp_path):
    """As `diffjax.nets.published` says to read them."""
    marker = tmp_path / "executed"
    np.savez(tmp_path / "ddpm.npz", **{"model/temb/dense0/W": np.array([Bomb(marker)], object)})
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb(marker)))
    assert "allow_pickle=False" in published.__doc__
    for name in ("ddpm.npz", "pickle.npz"):
        with pytest.raises(ValueError, match="allow_pickle"):
            from_ddpm(
                np.load(tmp_path / name, allow_pickle=False), {"params": {"temb_dense0": {"kernel": np.zeros(1)}}}
            )
    assert not marker.exists()
