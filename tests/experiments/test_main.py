"""The command a person types, in a subprocess as they would: what it leaves behind, and what it says when it cannot."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from command import TINY, call, refused, run
from PIL import Image
from sklearn.neighbors import KernelDensity

from configs.digits import get_config
from diffjax import data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "tiny"
    result = run(f"--config={tiny}", f"--workdir={workdir}", "--config.evaluation.parzen_samples=20")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_a_run_leaves_everything_it_promises(trained):
    workdir, result = trained
    config = json.loads((workdir / "config.json").read_text())
    assert config["diffusion"]["num_steps"] == 10
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [5, 10, 15, 20]
    assert {"loss", "grad_norm", "learning_rate", "images_per_second"} <= lines[0].keys()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]
    assert list(workdir.glob("events.out.tfevents.*"))
    for name in ("step_00000010.png", "step_00000020.png", "progressive_generation.png", "interpolation.png"):
        assert np.asarray(Image.open(workdir / "samples" / name)).std() > 1  # a picture, not a blank
    with Image.open(workdir / "samples" / "reverse_process.gif") as film:
        assert film.n_frames == 10
    report = json.loads((workdir / "eval.json").read_text())
    assert report["num_examples"] == 30
    assert report["step"] == 20
    assert abs(sum(report["terms"].values()) - report["bits_per_dim"]) < 1e-6
    assert report["standard_error"] > 0
    assert report["wall_seconds"] > 0
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["training_images_per_second"] > 0
    assert report["command"].startswith("python -m experiments.main --config=") and report["versions"]["jax"]
    page = (workdir / "report.html").read_text()
    assert f"<td>{report['bits_per_dim']:.6g}</td>" in page and page.count("data:image/gif;") == 1
    assert f"step 20: {report['bits_per_dim']:.4f}" in result.stdout
    assert "step 10: loss " in result.stdout and "step_00000010.png (" in result.stdout  # a line for each evaluation
    assert report["sampling_images_per_second"] > 0
    assert "loss" in result.stderr and "left" in result.stderr  # the progress bar
    window = report["parzen"]["training examples"]
    assert report["parzen"]["samples"]["num_samples"] == window["num_samples"] == 20
    train, test = (data.load(get_config().data, split) for split in ("train", "test"))
    pixels = [s.gather(np.arange(len(s)))["image"].reshape(len(s), 64) / 16 for s in (train, test)]
    density = KernelDensity(bandwidth=window["bandwidth"]).fit(pixels[0][:20])
    np.testing.assert_allclose(window["log_likelihood"], density.score_samples(pixels[1][29:]).mean(), rtol=1e-5)


@pytest.mark.slow
def test_evaluating_a_checkpoint_repeats_the_run_s_own_number(trained):
    workdir, _ = trained
    before = json.loads((workdir / "eval.json").read_text())
    result = call("--mode=eval", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    after = json.loads((workdir / "eval.json").read_text())
    assert after["step"] == 20
    np.testing.assert_allclose(after["bits_per_dim"], before["bits_per_dim"], rtol=1e-5)
    earlier = call("--mode=eval", f"--workdir={workdir}", "--step=10", "--config.evaluation.num_examples=16")
    assert earlier.returncode == 0, earlier.stderr
    report = json.loads((workdir / "eval.json").read_text())
    assert (report["step"], report["num_examples"]) == (10, 16)


def test_sampling_writes_a_grid_and_the_pixels(trained):
    workdir, _ = trained
    result = run("--mode=sample", f"--workdir={workdir}", "--num=20", "--sampler=ddim", "--steps=5")
    assert result.returncode == 0, result.stderr
    (path,) = (workdir / "samples").glob("ddim_5_*.npz")
    images = np.load(path)["images"]
    assert images.dtype == np.uint8
    assert images.shape == (20, 8, 8, 1)
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20  # the second batch is not the first again
    assert path.with_suffix(".png").exists()


@pytest.mark.slow
def test_a_finished_run_is_continued_not_repeated(trained, tiny):
    workdir, _ = trained
    result = run(f"--config={tiny}", f"--workdir={workdir}", "--config.training.steps=25")
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(20) <= 2  # a line of training and one of the evaluation at the end of the first run
    assert (workdir / "checkpoints" / "25").exists()


@pytest.mark.slow
def test_points_of_the_plane_go_through_train_eval_and_sample(tmp_path):
    few = ["--config=configs/sohl_dickstein_swiss_roll.py", "--config.training.steps=10", "--config.net.units=4"]
    few += ["--config.data.num_train=2048", "--config.data.num_test=200", "--config.evaluation.weighted_examples=50"]
    few += ["--config.evaluation.num_weights=3", f"--workdir={tmp_path}/r"]
    result = call(*few)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "r" / "eval.json").read_text())
    assert abs(report["K"]["per_dimension"] + report["bits_per_dim"]) < 1e-6  # no rescaling
    gain = report["K"]["per_example"] - report["L_null"]["per_example"]
    assert abs(gain - report["K - L_null"]["per_example"]) < 1e-6
    assert report["many samples"]["log p"]["per_example"] >= report["many samples"]["K"]["per_example"]
    assert "K - L_null" in result.stdout
    for name in ("trajectories.png", "step_00000010.png"):
        assert np.asarray(Image.open(tmp_path / "r" / "samples" / name)).std() > 1
    assert call("--mode=sample", f"--workdir={tmp_path}/r", "--num=7").returncode == 0
    (path,) = (tmp_path / "r" / "samples").glob("*.npz")
    samples = np.load(path)["samples"]
    assert samples.dtype == np.float32
    assert len(np.unique(samples, axis=0)) == 7
    # Without --config the run's own configuration counts, its fields included.
    fewer = call("--mode=eval", f"--workdir={tmp_path}/r", "--config.evaluation.num_weights=0")
    assert fewer.returncode == 0, fewer.stderr
    assert "many samples" not in json.loads((tmp_path / "r" / "eval.json").read_text())
    result = call("--mode=eval", f"--workdir={tmp_path}/r", "--config.evaluation.num_weigths=0")
    assert result.stderr.startswith("error: config.evaluation.num_weigths is not a field of")
    assert "config.json; config.evaluation has num_weights" in result.stderr
    result = call("--mode=sample", f"--workdir={tmp_path}/r", "--steps=5")
    assert result.returncode == 1
    assert "sampling.steps must be diffusion.num_steps=40" in result.stderr


def test_another_config_in_a_workdir_changes_nothing(trained, tiny):
    workdir, _ = trained
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    more = "--config.net.width=32", "--config.training.seed=3"
    says = refused(call(f"--config={tiny}", f"--workdir={workdir}", *more))
    assert "net.width (16 there, 32 now)" in says
    assert "training.seed (0 there, 3 now)" in says
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.foo=1"], "config.foo is not a field"),
        (["--config.net.chanels=8"], "config.net has channels"),
        (["--config.training.steps=many"], "invalid literal for int"),
        (["--config=configs/nope.py"], "configs/nope.py"),
        (["--mode=paint"], "train|eval|sample"),
        (["train"], "unexpected arguments train"),
        (["--mode=eval"], "--workdir"),
        (["--mode=sample", "--workdir=nowhere"], "holds no run"),
        (["--config.net.attention=(7,)"], "feature maps of height [8, 4]"),
        (["--config.net.multipliers=(1,2,2,2,2)"], "multiples of 16"),
        (["--config.training.batch_size=5000"], "5000"),
        (["--config.training.batch_size=60"], "56 or 64"),  # eight devices
        (["--config.data.levels=256"], "17 levels"),
        (["--config=configs/sohl_dickstein_heartbeat.py", "--config.diffusion.prior=1.0"], "prior probability"),
        (["--config=configs/sohl_dickstein_heartbeat.py", "--config.data.name=digits"], "digits"),
        (["--config=configs/sohl_dickstein_swiss_roll.py", "--config.data.noise=2.0"], "noise"),
        (["--config.parallel=both"], "'jit' or 'pmap'"),
        (["--config=configs/cifar10.py", "--config.data.dir=nowhere"], "diffjax.data.prepare cifar10"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(arguments, says, tmp_path):
    where = [] if any("workdir" in a for a in arguments) or "--mode=eval" in arguments else [f"--workdir={tmp_path}/r"]
    assert says in refused(call(*arguments, *where))
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_diverging_run_stops_names_the_step_and_keeps_its_checkpoint(trained, tiny, tmp_path):
    workdir = tmp_path / "r"
    shutil.copytree(trained[0], workdir)
    latest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    config = json.loads((workdir / "config.json").read_text())
    # The learning rate is part of what a run is; change it behind the run's back to make it sick.
    config["training"]["learning_rate"] = 1e30
    (workdir / "config.json").write_text(json.dumps(config))
    more = [f"--config.training.steps={latest + 20}", "--config.training.learning_rate=1e30"]
    result = call(f"--config={tiny}", f"--workdir={workdir}", *more)
    assert result.returncode == 1
    (step,) = map(int, re.findall(r"diverged at step (\d+)", result.stderr))
    assert latest < step <= latest + 20
    assert f"of step {latest}, is kept" in result.stderr
    assert max(int(path.name) for path in (workdir / "checkpoints").iterdir()) == latest
