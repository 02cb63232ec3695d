"""What a disk can do to a run's checkpoints: bits that flip, files cut short, no space left."""

import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest
from command import QUICK, run

from diffjax import zoo
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from experiments.workdir import read_config

FLIPS = 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(QUICK)
    return path


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Checkpoints 10 and 20, and nothing more than training needs."""
    workdir = tmp_path_factory.mktemp("run") / "tiny"
    result = run(f"--config={tiny}", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def largest(path):
    return max(files_of(path), key=lambda p: p.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
def test_no_flipped_bit_is_restored(trained, tmp_path, capfd):
    """In every file at least one, in those of many bytes more; each is noticed, or changes nothing that is used."""
    directory = shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    config = read_config(trained)
    settings = training_config(config.training)
    model = zoo.make(config)
    shapes = jax.eval_shape(lambda key: init_state(key, model, optimizer(settings)), jax.random.key(0))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
    with Checkpointer(directory, read_only=True) as checkpointer:
        saved = {step: jax.device_get(checkpointer.restore(wanted, step)) for step in (10, 20)}

    files = [path for path in files_of(directory / "20") if path.stat().st_size]
    rng = np.random.default_rng(3)
    sizes = np.array([path.stat().st_size for path in files])
    more = rng.choice(len(files), max(FLIPS - len(files), 5), p=sizes / sizes.sum())
    used = []
    for path in [*files, *(files[i] for i in more)]:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with Checkpointer(directory, read_only=True) as checkpointer:
            state, meta = checkpointer.restore(wanted)
        reported = "checkpoint 20 in" in capfd.readouterr().err
        assert reported == (meta["step"] == 10), path
        then_state, then_meta = saved[meta["step"]]
        assert meta == then_meta, path
        jax.tree.map(np.testing.assert_array_equal, state, then_state)
        used.append(meta["step"])
        path.write_bytes(whole)
    assert used.count(10) > FLIPS // 3  # the test is worth something only if most flips matter


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(trained, tiny, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    cut(largest(workdir / "checkpoints" / "20"))
    (workdir / "checkpoints" / "30").mkdir()
    before = losses(workdir)
    result = run(f"--config={tiny}", f"--workdir={workdir}", "--config.training.log_every=5")
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: checkpoint")]
    assert [line.split()[2] for line in warnings] == ["30", "20"]
    assert all(line.endswith("and checkpoint 10 is used instead") for line in warnings)
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]
    assert sorted(path.name for path in (workdir / "checkpoints-damaged").iterdir()) == ["20", "30"]
    assert losses(workdir) == before  # bit for bit the same run


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of a few megabytes takes the right to mount one")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_with_a_sentence_and_the_earlier_checkpoints(trained, tiny, small_disk):
    workdir = shutil.copytree(trained, small_disk / "run")
    more = (f"--config={tiny}", f"--workdir={workdir}", "--config.training.steps=40")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(b"0" * (free - 40_000))  # enough for the log, not for a checkpoint
    result = run(*more)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: checkpoint of step 30 could not be written to ")
    assert error.endswith(
        "No space left on device; the earlier checkpoints (steps 10, 20) are kept; free some space and start again"
    )
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]
    (small_disk / "filler").unlink()
    result = run(*more)
    assert result.returncode == 0, result.stderr
    assert "damaged" not in result.stderr
    assert max(losses(workdir)) == 40
