"""A run that is told to leave, then killed twenty times at random moments, is the run nobody disturbed, bit for bit."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command import FLAGS, QUICK, ROOT, state_of

pytestmark = pytest.mark.slow
KILLS = 20
EVERY = 10  # steps between checkpoints, and twice that of log entries


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    base = tmp_path_factory.mktemp("lost")
    (base / "tiny.py").write_text(QUICK)

    def start(name, steps):
        """A run under way. What is compiled is kept between runs, as it is for a user."""
        arguments = [f"--config={base / 'tiny.py'}", f"--workdir={base / name}", f"--config.training.steps={steps}"]
        arguments += [f"--config.training.save_every={EVERY}", "--config.training.log_every=5"]
        arguments += ["--config.training.eval_every=0", "--config.evaluation.num_examples=16"]
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.main", *arguments],
            cwd=ROOT,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(base / "compiled"), "XLA_FLAGS": FLAGS},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return base / name, process

    return start


def finished(workdir):
    """The steps of the checkpoints that have their final name."""
    directory = workdir / "checkpoints"
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit()) or [0]


def logged(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_a_step_after(workdir, step, process):
    while not any(line["step"] > step for line in logged(workdir)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def exit_code(process):
    process.communicate(timeout=300)
    return process.returncode


def test_twenty_kills_and_a_sigterm_change_no_bit(start):
    rng = random.Random(0)
    workdir, process = start("disturbed", 10**6)
    wait_for_a_step_after(workdir, 0, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    asked = int(re.search(r"stopped after step (\d+), which is saved", stderr)[1])
    # All is saved that was done, also between two of the checkpoints there would have been anyhow.
    assert finished(workdir)[-1] == asked >= logged(workdir)[-1]["step"]

    at = asked
    for kill in range(KILLS):
        _, process = start("disturbed", 10**6)
        if kill % 4 == 3:
            time.sleep(rng.uniform(0, 4))  # also while it starts and restores
        else:
            wait_for_a_step_after(workdir, max(at, logged(workdir)[-1]["step"]), process)
            time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        process.stderr.close()
        before, at = at, finished(workdir)[-1]
        assert at >= before
        # Saving is behind the training, but never by more than the save under way and the next.
        assert at >= logged(workdir)[-1]["step"] - 3 * EVERY
    last = at + 2 * EVERY
    _, process = start("disturbed", last)
    assert exit_code(process) == 0
    assert all(path.name.isdigit() for path in (workdir / "checkpoints").iterdir())  # no half-written one is left
    print(f"{KILLS} kills on the way to step {last}, a SIGTERM at {asked}")

    undisturbed, process = start("undisturbed", last)
    assert exit_code(process) == 0
    ours, theirs = ([line for line in logged(w) if "loss" in line] for w in (workdir, undisturbed))
    steps = [line["step"] for line in ours]
    assert sorted(set(steps)) == steps == [line["step"] for line in theirs]
    differ = [
        a["step"]
        for a, b in zip(ours, theirs, strict=True)
        if any(a[name] != b[name] for name in ("loss", "grad_norm", "learning_rate"))
    ]
    assert set(differ) <= {asked // 5 * 5 + 5}  # a mean over fewer steps, since the run began between two logs
    for a, b in zip(state_of(workdir, last), state_of(undisturbed, last), strict=True):
        np.testing.assert_array_equal(a, b)
