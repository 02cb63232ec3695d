"""Whole runs, as a user starts them: the default job, toys, and CIFAR-10 where it is to be had."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from command import ROOT, run
from PIL import Image
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from diffjax import data

pytestmark = [pytest.mark.slow, pytest.mark.trains]
one_process = pytest.mark.xdist_group("default")  # of `-n 2 --dist loadgroup`: the run is trained once


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    result = run(f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir


@one_process
def test_the_default_run_beats_the_best_model_of_independent_pixels(default):
    """The best factorised model's bits/dim on the test set, from the training set's histograms (add-one smoothed)."""
    from configs.digits import get_config

    train, test = (data.load(get_config().data, split) for split in ("train", "test"))
    pixels = train.gather(np.arange(len(train)))["image"].reshape(len(train), 64)
    histogram = np.stack([(pixels == level).sum(0) + 1 for level in range(17)]) / (len(train) + 17)
    held_out = test.gather(np.arange(len(test)))["image"].reshape(len(test), 64)
    factorised = -np.log2(histogram[held_out, np.arange(64)]).mean()
    print(f"the best model of independent pixels: {factorised:.3f} bits/dim")
    report = json.loads((default / "eval.json").read_text())
    assert report["num_examples"] == len(test)
    assert report["bits_per_dim"] + 5 * report["standard_error"] < factorised


@one_process
def test_the_default_run_draws_digits(default):
    assert run("--mode=sample", f"--workdir={default}", "--num=256").returncode == 0
    (path,) = (default / "samples").glob("*.npz")
    these_are_digits(np.load(path)["images"], 1.25)


def these_are_digits(images, most):
    """They lie as near to real digits as other real digits do (independent pixels: twice as far); all ten occur."""
    samples = images.reshape(len(images), 64) / 255 * 16
    digits = load_digits()
    known, held_out = digits.data[:1500], digits.data[1500:]
    neighbours = KNeighborsClassifier(1).fit(known, digits.target[:1500])

    def distance(images):
        return neighbours.kneighbors(images)[0].mean()

    shuffled = np.random.default_rng(0).permuted(known, axis=0)[:256]  # each pixel from a digit of its own
    assert distance(shuffled) > 1.6 * distance(held_out)  # the measure can tell
    print("distance to the nearest digit, samples and real:", distance(samples), distance(held_out))
    assert 0.8 * distance(held_out) < distance(samples) < most * distance(held_out)
    assert set(neighbours.predict(samples)) == set(range(10))


@one_process
def test_the_default_model_inpaints_and_denoises_digits(default):
    """Guided by E[r(x_0) | x_t], holes are filled with what belongs there; noise is taken off by starting in it."""
    from diffjax import conditioning, samplers, zoo
    from experiments import run as runs
    from experiments.opened import open_run
    from experiments.workdir import read_config

    config = read_config(default)
    _, params = runs.restore_ema(open_run(config, default), None)
    process, predict = zoo.make(config).kernels(params)
    train = data.load(config.data, "train").gather(np.arange(1500))
    num = 50
    test = data.load(config.data, "test").gather(np.arange(num))
    x0 = test["image"] / 8.0 - 1
    stepper, times = samplers.ancestral(process, "learned"), samplers.spaced(process.schedule.times, 125)
    mask = np.ones((8, 8, 1), bool)
    mask[2:6, 2:6] = False
    given = conditioning.given(process, predict, conditioning.inpainting(x0, mask), "isotropic")

    def draw(predict, seed):
        return np.asarray(jax.jit(lambda key: samplers.sample(stepper, predict, key, times, x0.shape))(seed))

    filled, free = draw(given, jax.random.key(0)), draw(predict, jax.random.key(1))
    assert np.abs(filled - x0)[:, mask].max() < 0.1  # what is known stays
    hole = ~mask
    error, chance = (((x - x0)[:, hole] ** 2).mean() for x in (filled, free))
    print(f"mean square in the hole: inpainted {error:.3f}, other digits {chance:.3f}")
    assert error < 0.6 * chance
    neighbours = KNeighborsClassifier(3).fit(train["image"].reshape(-1, 64), train["label"])
    right = np.mean(neighbours.predict((filled.reshape(num, 64) + 1) * 8) == test["label"])
    print(f"{right:.2f} of the inpainted digits are read as what they were")
    assert right > 0.7

    noise = 0.5
    y = x0 + noise * np.random.default_rng(0).normal(size=x0.shape).astype(np.float32)
    start, later = conditioning.denoising_start(process, y, noise, times)
    clean = np.asarray(samplers.denoise(stepper, predict, jax.random.key(2), start, later))
    # A draw of p(x_0 | y) is off by twice the posterior's variance; y itself by noise².
    print(f"mean square error: noisy {((y - x0) ** 2).mean():.3f}, denoised {((clean - x0) ** 2).mean():.3f}")
    assert ((clean - x0) ** 2).mean() < 0.6 * noise**2

    # The run draws such pictures itself where it is asked to, of a finished run too.
    again = run(f"--workdir={default}", "--config.evaluation.conditioning=True", "--config.evaluation.num_examples=10")
    assert again.returncode == 0, again.stderr
    for name in ("denoising", "inpainting"):
        assert np.asarray(Image.open(default / "samples" / f"{name}.png")).std() > 1


def the_flow_is_above_the_bound(report, least):
    """Of the same examples, and both are of whole numbers: not below 0 bits, and better than `least` bits/dim."""
    flow = report["flow"]
    print("flow", flow["log p"], "above the bound", flow["above the bound"])
    gap = flow["above the bound"]
    assert gap["nats"] > -5 * gap["standard_error_nats"]
    assert -least < flow["log p"]["per_dimension"] < 0


@one_process
def test_the_flow_of_the_default_run_is_above_its_bound(default):
    few = [f"--config.evaluation.{name}=33" for name in ("num_examples", "flow_examples", "batch_size")]
    result = run("--mode=eval", f"--workdir={default}", *few)
    assert result.returncode == 0, result.stderr
    assert "probability flow less bound" in result.stdout
    the_flow_is_above_the_bound(json.loads((default / "eval.json").read_text()), 2.2)


def test_a_score_model_of_digits_has_a_flow_above_its_bound_and_draws_digits(tmp_path):
    """Half of what configs/sde_digits.py trains."""
    few = ["--config.training.steps=400", "--config.training.save_every=400", "--config.evaluation.conditioning=False"]
    few += ["--config.evaluation.num_terms=40", "--config.evaluation.num_examples=66", "--config.evaluation.grid=100"]
    few += ["--config.evaluation.flow_examples=33", "--config.evaluation.batch_size=33", "--config.sampling.steps=100"]
    result = run("--config=configs/sde_digits.py", f"--workdir={tmp_path}/r", *few)
    assert result.returncode == 0, result.stderr
    the_flow_is_above_the_bound(json.loads((tmp_path / "r" / "eval.json").read_text()), 2.6)
    drawn = run("--mode=sample", f"--workdir={tmp_path}/r", "--num=198", "--config.evaluation.batch_size=198")
    assert drawn.returncode == 0, drawn.stderr
    (path,) = (tmp_path / "r" / "samples").glob("*.npz")
    these_are_digits(np.load(path)["images"], 1.4)


def _heartbeats(workdir: Path, *arguments) -> dict:
    import heartbeats

    result = run(*arguments, f"--workdir={workdir}")
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
    result = run("--mode=sample", f"--workdir={workdir}", "--num=5000")
    assert result.returncode == 0, result.stderr
    (path,) = (workdir / "samples").glob("*.npz")
    samples = np.load(path)["samples"]
    hearts = np.arange(20) % 5 == np.arange(5)[:, None]
    valid = (samples[:, None] == hearts).all(-1)
    print(f"{valid.any(1).mean():.4f} of {len(samples)} sampled sequences are heartbeats")
    assert valid.any(1).mean() > 0.99
    # Each phase has a fifth of them: five standard errors.
    assert np.abs(valid.mean(0) - 0.2).max() < 5 * (0.16 / len(samples)) ** 0.5


def test_the_swiss_roll_is_learned_to_its_entropy(tmp_path):
    """K within 0.15 bits per dimension of the mean log-density of the test points, by quadrature along the roll."""
    workdir = tmp_path / "roll"
    result = run("--config=configs/sohl_dickstein_swiss_roll.py", f"--workdir={workdir}")
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
    narrow += ["--config.sampling.sampler=ddim", "--config.sampling.steps=20", f"--workdir={tmp_path}/c"]
    narrow += ["--config.training.learning_rate=1e-3", "--config.training.ema_decay=0.9"]
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
