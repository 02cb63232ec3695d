import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from tiny import DEVICES

from diffjax.errors import InputError
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.feed import DataTimeout, Feed
from diffjax.training.loop import TrainingDiverged, TrainingStopped, train
from diffjax.training.metrics import PATIENCE


def recorded(seen):
    """The data of `tiny`, writing down (step, image) as it is asked for."""

    def make_batches(start):
        for n, batch in enumerate(tiny.make_batches(start), start + 1):
            seen.append((n, batch["image"]))
            yield batch

    return make_batches


def run(
    directory,
    make_batches=tiny.make_batches,
    model=tiny.mean,
    on_start=None,
    on_log=None,
    on_eval=None,
    meta=None,
    stop=None,
    **config,
):
    return train(
        model,
        {**tiny.CONFIG, **config},
        make_batches,
        directory,
        on_start=on_start,
        on_log=on_log,
        on_eval=on_eval,
        meta=meta,
        stop=stop,
        devices=jax.devices()[:DEVICES],
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_killed_run_resumes_to_the_very_same_state(tmp_path, mode):
    seen_once, seen_after = [], []
    expected = run(tmp_path / "once", recorded(seen_once), tiny.denoiser, flip=True, parallel=mode)

    script = str(Path(tiny.__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, script, str(tmp_path / "killed"), "1000000", mode]
    quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen(command, env=environment, **quiet) as child:
        for line in child.stdout:
            if int(line) == 13:
                break
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    with Checkpointer(tmp_path / "killed", read_only=True) as checkpointer:
        kept = checkpointer.steps()
    # The pipe may be behind the child, but not by much: it cannot have come to the end of this test's 20 steps.
    assert kept and set(kept) <= {5, 10, 15}

    resumed = run(tmp_path / "killed", recorded(seen_after), tiny.denoiser, flip=True, parallel=mode)
    assert jax.tree.structure(resumed) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(resumed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(got, want)
    assert [n for n, _ in seen_after] == list(range(kept[-1] + 1, 21))
    for (n, got), (m, want) in zip(seen_after, seen_once[kept[-1] :], strict=True):
        assert n == m
        np.testing.assert_array_equal(got, want)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 11 steps that moves so little that losses and gradients are those of its first parameters, 0."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    seen = {"logs": {}, "evaluations": {}, "starts": []}
    final = run(
        directory,
        on_start=seen["starts"].append,
        on_log=seen["logs"].__setitem__,
        on_eval=lambda step, state: seen["evaluations"].__setitem__(step, jax.device_get(state)),
        steps=11,
        learning_rate=1e-9,
        log_every=4,
        eval_every=3,
        save_every=4,
        meta={"config": {"name": "tiny"}},
    )
    return directory, final, seen


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "checkpoints")


def test_what_is_logged_saved_and_evaluated(finished):
    directory, final, seen = finished
    logs, evaluations = seen["logs"], seen["evaluations"]
    assert list(logs) == [4, 8, 11]
    assert seen["starts"] == [0]
    images = {n: tiny.batch_of_step(n)["image"].reshape(tiny.BATCH, -1) / 127.5 - 1 for n in range(1, 12)}
    for step, window in {4: range(1, 5), 8: range(5, 9), 11: range(9, 12)}.items():
        losses = [0.5 * np.sum(images[n] ** 2, axis=1).mean() for n in window]
        norms = [np.linalg.norm(images[n].mean(axis=0)) for n in window]
        np.testing.assert_allclose(logs[step]["loss"], np.mean(losses), rtol=1e-5)
        np.testing.assert_allclose(logs[step]["grad_norm"], np.mean(norms), rtol=1e-5)
        np.testing.assert_allclose(logs[step]["learning_rate"], 1e-9 * min(1, step / 6), rtol=1e-6)
        assert logs[step]["images_per_second"] > 0
    assert list(evaluations) == [3, 6, 9, 11]
    for step, state in evaluations.items():
        assert state.step == step
        total = sum(0.5 * np.sum(images[n] ** 2) for n in range(1, step + 1))
        np.testing.assert_allclose(state.memory, total, rtol=1e-5)
    for got, want in zip(jax.tree.leaves(evaluations[11]), jax.tree.leaves(final), strict=True):
        np.testing.assert_array_equal(got, want)
    with Checkpointer(directory, read_only=True) as checkpointer:
        assert checkpointer.steps() == [8, 11]
        _, meta = checkpointer.restore(jax.eval_shape(lambda: final))
    assert meta == {"config": {"name": "tiny"}, "step": 11, "examples_seen": 11 * tiny.BATCH}


def test_a_finished_run_is_only_evaluated_and_a_shorter_one_refused(finished, copied):
    steps = []
    again = run(copied, steps=11, on_start=steps.append, on_eval=lambda step, state: steps.append(step))
    assert steps == [11, 11]
    for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(finished[1]), strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(InputError, match=r"training.steps = 2 lies before the checkpoint of step 11"):
        run(copied, steps=2)


@pytest.mark.slow
def test_a_loss_which_is_not_finite_stops_the_run_and_spares_the_checkpoints(tmp_path):
    def make_batches(start):
        for n, batch in enumerate(tiny.make_batches(start), start + 1):
            yield {**batch, "label": np.where(np.arange(tiny.BATCH) == 3, -1, 0)} if n == 13 else batch

    logged, evaluated = [], []
    with pytest.raises(TrainingDiverged, match=r"diverged at step 13: its loss is nan.*of step 10, is kept") as error:
        run(
            tmp_path,
            make_batches,
            log_every=20,
            eval_every=14,
            on_log=lambda step, metrics: logged.append(step),
            on_eval=lambda step, state: evaluated.append(step),
        )
    assert error.value.step == 13
    assert logged == [] and evaluated == []
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == [5, 10]

    # With the cause removed the run goes on from there and ends where a run without the accident ends.
    resumed, expected = run(tmp_path), run(tmp_path / "other")
    for got, want in zip(jax.tree.leaves(resumed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of the learning rate
def test_parameters_which_are_not_finite_are_not_saved_though_the_loss_was(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"at step 1: the parameters .*no checkpoint had been saved yet"):
        run(tmp_path, learning_rate=1e39, warmup=0, save_every=1)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == []


def test_data_which_does_not_fit_is_refused(copied):
    with pytest.raises(InputError, match=r"gives 8 examples of 'image'.*training.batch_size = 16"):
        run(copied, lambda start: iter([tiny.batch_of_step(0, 8)]))
    with pytest.raises(InputError, match=r"ended before step 12, but training.steps = 20"):
        run(copied, lambda start: iter([]))
    with pytest.raises(InputError, match=r"training.flip = True needs"):
        run(copied, lambda start: iter([{"x": np.zeros((16, 2))}]), flip=True)
    with pytest.raises(InputError, match=r"15 cannot be divided equally between 2 devices"):
        run(copied, batch_size=15)


def poisoned(*steps):
    """The data of `tiny`, of which some steps have one example whose loss is NaN."""

    def make_batches(start):
        for n, batch in enumerate(tiny.make_batches(start), start + 1):
            yield {**batch, "label": np.where(np.arange(tiny.BATCH) == 3, -1, 0)} if n in steps else batch

    return make_batches


def test_bad_steps_are_skipped_as_if_they_had_not_been(tmp_path, capsys):
    """With the bad steps 1 and 2 skipped, step 3 is Adam's first: the parameters move by lr, up or down."""
    logs = {}
    options = {"on_bad_step": "skip", "steps": 3, "warmup": 0, "grad_clip": 0.0, "save_every": 2}
    after = run(tmp_path, poisoned(1, 2), on_log=logs.__setitem__, **options)
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        skipped, _ = checkpointer.restore(jax.eval_shape(lambda: after), 2)
    start = tiny.mean.init(None)
    for got, want in zip(jax.tree.leaves((skipped.params, skipped.ema)), jax.tree.leaves((start, start)), strict=True):
        np.testing.assert_array_equal(got, want)
    assert all(not np.any(x) for x in jax.tree.leaves(skipped.opt_state)) and skipped.step == 2
    assert skipped.memory == 0
    for got, want in zip(jax.tree.leaves(after.params), jax.tree.leaves(start), strict=True):
        np.testing.assert_allclose(np.abs(got - want), 1e-2, rtol=1e-3)
    assert after.memory > 0
    assert [logs[n]["skipped"] for n in (1, 2, 3)] == [1, 1, 0]
    err = capsys.readouterr().err
    assert "step 1 was skipped: its loss is nan" in err and "step 2 was skipped" in err and "step 3" not in err


@pytest.mark.slow
def test_a_gradient_that_explodes_is_named_and_stops_the_run(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"at step 1: its grad_norm is [\d.]+, above training.grad_limit = 0.01"):
        run(tmp_path / "stops", grad_limit=0.01)
    with pytest.raises(TrainingDiverged, match=rf"at step {PATIENCE}: .* and the {PATIENCE - 1} steps before it were"):
        run(tmp_path / "skips", grad_limit=0.01, on_bad_step="skip", steps=2 * PATIENCE)


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_saves_and_can_go_on(tmp_path):
    with pytest.raises(TrainingStopped, match="stopped after step 3, which is saved in") as stopped:
        run(tmp_path / "two", stop=lambda step: step == 3)
    assert stopped.value.step == 3
    for got, want in zip(jax.tree.leaves(run(tmp_path / "two")), jax.tree.leaves(run(tmp_path / "one")), strict=True):
        np.testing.assert_array_equal(got, want)


def test_one_may_wait_for_data_for_ever():
    for seconds in (math.inf, 1e300):  # more than the clock can count
        feed = Feed(iter([{"x": np.ones(1)}]), seconds)
        assert feed.get(1)["x"] == 1
        feed.close()


@pytest.mark.slow
def test_data_that_hangs_is_given_up_and_data_that_fails_says_why(tmp_path):
    released = threading.Event()

    def hangs(start):
        yield from (tiny.batch_of_step(n) for n in (1, 2))
        released.wait(60)

    began = time.monotonic()
    with pytest.raises(DataTimeout, match=r"no batch for step 3 came within training.data_timeout = 0.5 seconds"):
        run(tmp_path / "hangs", hangs, data_timeout=0.5)
    assert time.monotonic() - began < 30
    released.set()

    def fails(start):
        yield tiny.batch_of_step(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path / "fails", fails)


@pytest.mark.slow
def test_waiting_for_slow_data_is_counted(tmp_path):
    def slow(start):
        for n in range(start + 1, 100):
            time.sleep(0.05)
            yield tiny.batch_of_step(n)

    logs = {}
    run(tmp_path / "slow", slow, on_log=logs.__setitem__, steps=20, log_every=20, save_every=0)
    run(tmp_path / "fast", on_log=lambda step, log: logs.__setitem__("fast", log), steps=20, log_every=20, save_every=0)
    waited = logs[20]["input_wait"] * 16 / logs[20]["images_per_second"]  # seconds a step
    assert 0.5 * 0.05 < waited < 0.05 * 1.5
    assert logs["fast"]["input_wait"] < logs[20]["input_wait"]
    assert logs[20]["first_step_seconds"] > 0
