"""The binary heartbeat, trained whole: it takes longer than any other test, and so has a file to itself."""

import json
from pathlib import Path

import heartbeats
import numpy as np
import pytest
from command import run

pytestmark = [pytest.mark.slow, pytest.mark.trains]


def _heartbeats(workdir: Path, *arguments) -> dict:
    result = run(*arguments, "--config.evaluation.num_weights=0", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    print(result.stdout)
    report = json.loads((workdir / "eval.json").read_text())
    edge = "fixed" if "--config.diffusion.edge=fixed" in arguments else "learned"
    report["best"] = heartbeats.best_bound(2000, 0.2, edge)
    return report


def test_heartbeats_come_near_the_best_bound_there_is_and_beat_like_hearts(tmp_path):
    """K against the enumerated optimum of kernels that treat bits apart, and the paper's -2.414 bits a sequence."""
    workdir = tmp_path / "heartbeat"
    learned = _heartbeats(workdir, "--config=configs/sohl_dickstein_heartbeat.py")
    fixed = _heartbeats(workdir, "--mode=eval", "--config.diffusion.edge=fixed")
    for report in (learned, fixed):
        assert -2.414 < report["K"]["per_example"] < report["best"] + 5 * report["K"]["standard_error"]
    result = run("--mode=sample", f"--workdir={workdir}", "--num=4000")  # two batches
    assert result.returncode == 0, result.stderr
    (path,) = (workdir / "samples").glob("*.npz")
    samples = np.load(path)["samples"]
    hearts = np.arange(20) % 5 == np.arange(5)[:, None]
    valid = (samples[:, None] == hearts).all(-1)
    print(f"{valid.any(1).mean():.4f} of {len(samples)} sampled sequences are heartbeats")
    assert valid.any(1).mean() > 0.99
    # Each phase has a fifth of them: five standard errors.
    assert np.abs(valid.mean(0) - 0.2).max() < 5 * (0.16 / len(samples)) ** 0.5
