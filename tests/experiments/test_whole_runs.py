"""Whole runs, as a user starts them: a score model, toys, and CIFAR-10 where it is to be had."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from command import ROOT, run
from judges import the_flow_is_above_the_bound, these_are_digits
from scipy.special import logsumexp

from diffjax import data

pytestmark = [pytest.mark.slow, pytest.mark.trains]


def test_a_score_model_of_digits_has_a_flow_above_its_bound_and_draws_digits(tmp_path):
    """Half of what configs/sde_digits.py trains, of half the width."""
    few = ["--config.training.steps=400", "--config.training.save_every=400", "--config.evaluation.conditioning=False"]
    few += ["--config.net.channels=16"]
    few += ["--config.evaluation.num_terms=40", "--config.evaluation.num_examples=33", "--config.evaluation.grid=9"]
    few += ["--config.evaluation.flow_examples=11", "--config.evaluation.batch_size=11", "--config.sampling.steps=100"]
    result = run("--config=configs/sde_digits.py", f"--workdir={tmp_path}/r", *few)
    assert result.returncode == 0, result.stderr
    the_flow_is_above_the_bound(json.loads((tmp_path / "r" / "eval.json").read_text()), 2.6)
    drawn = run("--mode=sample", f"--workdir={tmp_path}/r", "--num=198", "--config.evaluation.batch_size=198")
    assert drawn.returncode == 0, drawn.stderr
    (path,) = (tmp_path / "r" / "samples").glob("*.npz")
    these_are_digits(np.load(path)["images"], 1.4)


def test_the_swiss_roll_is_learned_to_its_entropy(tmp_path):
    """K within 0.15 bits per dimension of the mean log-density of the test points, by quadrature along the roll."""
    workdir = tmp_path / "roll"
    few = ["--config.training.steps=5000", "--config.evaluation.weighted_examples=300"]  # half
    result = run("--config=configs/sohl_dickstein_swiss_roll.py", f"--workdir={workdir}", *few)
    assert result.returncode == 0, result.stderr
    report = json.loads((workdir / "eval.json").read_text())
    from configs.sohl_dickstein_swiss_roll import get_config

    config = get_config()
    test = data.load(config.data, "test")
    points = test.gather(np.arange(len(test)))["image"].astype(np.float64)
    noise = config.data.noise
    angle = 1.5 * np.pi * (1 + 2 * (np.arange(50_000) + 0.5) / 50_000)
    curve = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1)
    curve = (1 - noise**2) ** 0.5 * (curve - curve.mean(0)) / curve.std(0)
    log_p = [logsumexp(-((curve - x) ** 2).sum(1) / (2 * noise**2)) for x in points]
    log_p = np.array(log_p) - np.log(len(curve) * 2 * np.pi * noise**2)
    entropy, error = -log_p.mean() / np.log(2), log_p.std() / np.log(2) / len(log_p) ** 0.5
    print(f"{result.stdout}the generator's negative entropy: {-entropy:.4f} ± {error:.4f} bits a point")
    k = report["K"]
    assert -entropy - 2 * 0.15 < k["per_example"] < -entropy + 5 * k["standard_error"]
    many = report["many samples"]
    assert many["K"]["per_example"] < many["log p"]["per_example"]


def test_cifar10_goes_through_train_eval_and_sample(tmp_path):
    """A narrow network, 200 steps. (Bits/dim of a copy that went through JPEG would compare with nothing.)"""
    directory = Path(os.environ.get("TFDS_DATA_DIR", ROOT.parent / "shared" / "tensorflow_datasets"))
    if not (directory / "cifar10").is_dir():
        pytest.skip("no prepared cifar10 in TFDS_DATA_DIR")
    narrow = ["--config=configs/cifar10.py", f"--config.data.dir={directory}", "--config.net.channels=16"]
    narrow += ["--config.net.multipliers=(1,2)", "--config.net.num_blocks=1", "--config.training.batch_size=16"]
    narrow += ["--config.training.steps=200", "--config.training.eval_every=0", "--config.training.warmup=50"]
    narrow += ["--config.evaluation.num_examples=32", "--config.evaluation.num_terms=10", "--config.evaluation.grid=4"]
    narrow += ["--config.evaluation.batch_size=16", "--config.evaluation.conditioning=False"]
    narrow += ["--config.sampling.sampler=ddim", "--config.sampling.steps=20", f"--workdir={tmp_path}/c"]
    narrow += ["--config.training.learning_rate=1e-3", "--config.training.ema_decay=0.9"]
    narrow += ["--config.diffusion.num_steps=100", "--config.diffusion.betas=(1e-3,0.2)"]  # the film goes through all
    result = run(*narrow)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "c" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.3  # the constant-0 network that training starts from has 1
    for arguments in (["--mode=eval"], ["--mode=sample", "--num=4", "--sampler=ddim", "--steps=10"]):
        again = run(*arguments, f"--workdir={tmp_path}/c")
        assert again.returncode == 0, again.stderr
    report = json.loads((tmp_path / "c" / "eval.json").read_text())
    assert 0 < report["bits_per_dim"] < 8  # 8 bits/dim is what no model at all gives
    (path,) = (tmp_path / "c" / "samples").glob("*.npz")
    assert np.load(path)["images"].shape == (4, 32, 32, 3)
