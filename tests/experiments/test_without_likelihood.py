"""Runs of systems that have no likelihood: what is fitted, measured and refused."""

import json
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from configs import ae_linear_digits
from diffjax import data
from diffjax.errors import InputError
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.measure import Trained, evaluate
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.mesh import make_mesh
from diffjax.zoo import Examples, Model
from experiments import run

SYSTEMS = sys.modules["diffjax.zoo.make"].SYSTEMS


def mean_of_the_digits(config):
    """y is the mean of the training examples; the class is 0 if the image is bright, else 1; features are two rows."""

    def pixels(batch):
        return jnp.asarray(batch["image"], float).reshape(-1, 64)

    def reconstruct(params, key, batch):
        return jnp.broadcast_to(params["mean"], pixels(batch).shape).reshape(-1, 8, 8, 1) / 8.0 - 1

    def class_log_probs(params, batch):
        bright = pixels(batch).mean(1) > 5
        return jnp.log(jnp.where(bright[:, None], jnp.array([0.8, 0.2]), jnp.array([0.3, 0.7])))

    return Model(
        init=lambda key: {"mean": jnp.zeros(64)},
        loss=lambda params, key, batch: ((pixels(batch) - params["mean"]) ** 2).mean(-1),
        examples=Examples(fit=lambda params, examples: {"mean": examples["image"].reshape(-1, 64).mean(0)}),
        measures=(
            Reconstruction(reconstruct),
            Classification(class_log_probs),
            Probe(lambda params, batch: pixels(batch)[:, 16:32]),
        ),
    )


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(SYSTEMS, "mean", mean_of_the_digits)
    config = ae_linear_digits.get_config()
    config.system = "mean"
    config.evaluation.batch_size = 100  # the last batch is filled up
    config.training.update(steps=0, batch_size=96)
    return config


def test_a_fitted_system_is_measured_saved_and_continued(config, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "r"
    run.train(config, workdir)
    report = json.loads((workdir / "eval.json").read_text())
    sets = [data.load(config.data, split) for split in ("train", "test")]
    (train, labels), (test, test_labels) = (
        (batch["image"].reshape(-1, 64) / 16.0, batch["label"]) for batch in (s.gather(np.arange(len(s))) for s in sets)
    )
    assert "bits_per_dim" not in report
    assert report["num_examples"] == 297

    errors = ((test - train.mean(0)) ** 2).mean(1)
    np.testing.assert_allclose(report["reconstruction"]["mean_squared_error"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(report["reconstruction"]["standard_error"], errors.std(ddof=1) / 297**0.5, rtol=1e-4)
    assert report["reconstruction"]["units"] == "range [0, 1]"

    rate = (np.where(test.mean(1) > 5 / 16, 0, 1) != test_labels).mean()
    classes = report["classification"]
    np.testing.assert_allclose(classes["error_rate_percent"], 100 * rate)
    np.testing.assert_allclose(classes["standard_error_percent"], 100 * np.sqrt(rate * (1 - rate) / 297))

    scaled = [(x - train.mean(0)) / np.maximum(train.std(0), 1e-9) for x in (train, test)]
    for name, columns in (("features", slice(16, 32)), ("pixels", slice(64))):
        oracle = LogisticRegression(max_iter=10_000).fit(scaled[0][:, columns], labels)
        accuracy = oracle.score(scaled[1][:, columns], test_labels)
        assert abs(report["probe"][name]["accuracy"] - accuracy) <= 1 / 297
        assert report["probe"][name]["num_train"] == 1500
    assert report["probe"]["features"]["accuracy"] < report["probe"]["pixels"]["accuracy"]

    said = capsys.readouterr().out
    assert f"step 0: mean squared error {errors.mean():.5f} ±" in said and "on 297 held-out examples" in said
    assert f"mean squared error {errors.mean():.5f} ±" in said
    assert f"classification: {100 * rate:.2f} ±" in said
    assert f"pixels {100 * report['probe']['pixels']['accuracy']:.2f} ±" in said
    (line,) = (workdir / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(line)
    assert logged["step"] == 0
    np.testing.assert_allclose(logged["reconstruction"], errors.mean(), rtol=1e-5)
    assert {"error_rate_percent", "probe_accuracy"} < logged.keys()
    assert list(workdir.glob("events.out.tfevents.*"))
    assert not (workdir / "samples").exists()

    with pytest.raises(InputError, match="--mode=sample: 'mean' is no model one can sample from"):
        run.sample(config, workdir, None, 4, 0)

    # Evaluated again, and continued: from the checkpoint, not by another fit.
    def refuse(params, examples):
        raise AssertionError("fitted again")

    monkeypatch.setitem(
        SYSTEMS, "mean", lambda config: mean_of_the_digits(config)._replace(examples=Examples(fit=refuse))
    )
    run.evaluate(config, workdir, None)
    again = json.loads((workdir / "eval.json").read_text())
    assert again["reconstruction"] == report["reconstruction"]
    config.training.steps = 3
    config.training.log_every = 1
    run.train(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    variance = (256 * (train - train.mean(0)) ** 2).mean()
    assert abs(lines[-2]["loss"] - variance) < 0.1 * variance  # from 0 it would be the second moment, 2.3 times that
    assert json.loads((workdir / "eval.json").read_text())["step"] == 3


@pytest.mark.slow
def test_a_resumed_log_keeps_its_lines_and_has_none_twice(config, tmp_path):
    """From steps 4 and 6, a last log that was early, on to 9 with another `log_every`; then once more, in a thread."""
    config.evaluation.probe = ""
    config.training.update(steps=6, log_every=4)
    path = tmp_path / "metrics.jsonl"
    run.train(config, tmp_path)
    first = path.read_bytes()
    assert [json.loads(line)["step"] for line in first.splitlines()] == [4, 6, 6]  # the last is the evaluation
    # A killed run leaves lines of steps that it has not saved, and half a line.
    path.write_bytes(first + b'{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    config.training.update(steps=9, log_every=100)
    run.train(config, tmp_path)
    second = path.read_bytes()
    assert second.startswith(first)
    assert [json.loads(line)["step"] for line in second[len(first) :].splitlines()] == [9, 9]
    assert "loss" in json.loads(second.splitlines()[-2])

    # A finished run is evaluated again. Signals cannot be caught in a thread, and it goes without.
    (tmp_path / "eval.json").unlink()
    failures = []
    thread = threading.Thread(target=lambda: failures.append(_failure(config, str(tmp_path))))
    thread.start()
    thread.join()
    assert failures == [None]
    assert json.loads((tmp_path / "eval.json").read_text())["step"] == 9
    assert path.read_bytes() == second


def _failure(config, workdir):
    try:
        run.train(config, workdir)
    except Exception as error:
        return error


def test_what_cannot_be_probed_is_said_before_anything_is_written(config, tmp_path, monkeypatch):
    config.evaluation.probe = "forest"
    with pytest.raises(InputError, match="probe must be '' or one of logistic, svm, not 'forest'"):
        run.train(config, tmp_path / "r")
    config.evaluation.probe = "svm"
    some = mean_of_the_digits(config).measures[:2]
    monkeypatch.setitem(SYSTEMS, "mean", lambda config: mean_of_the_digits(config)._replace(measures=some))
    with pytest.raises(InputError, match=r"evaluation\.probe='svm': 'mean' has no features; set it to ''"):
        run.train(config, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("num_weights", "evaluation.num_weights=5: 'mean' has no log-weights; set it to 0"),
        ("flow_examples", "evaluation.flow_examples=5: 'mean' has no probability flow; set it to 0"),
        ("parzen_samples", "evaluation.parzen_samples=5: 'mean' has no samples; set it to 0"),
    ],
)
def test_what_needs_a_likelihood_or_samples_is_refused(config, field, says):
    config.evaluation.probe = ""
    config.evaluation[field] = 5
    model = mean_of_the_digits(config)
    digits = load_digits()
    few = data.dataset.from_arrays("few", digits.images[:20, :, :, None].astype(np.uint8), digits.target[:20], 17)
    with pytest.raises(InputError, match=says):
        params, options = {"mean": jnp.zeros(64)}, config.evaluation.to_dict()
        evaluate(Trained(model, "mean", params, jax.random.key(0), options, make_mesh(), few, lambda: few))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "kmeans", "sparse", "mlp", "denoising", "contractive"])
def test_the_configurations_run(kind, tmp_path):
    """By a few steps, on a smaller code: what each is for."""
    module = __import__(f"configs.ae_{kind}_digits", fromlist=["get_config"])
    config = module.get_config()
    config.autoencoder.code = 16
    config.training.update(steps=min(config.training.steps, 300), batch_size=96)
    run.train(config, tmp_path / "r")
    report = json.loads((tmp_path / "r" / "eval.json").read_text())
    train = data.load(config.data, "train")
    variance = (train.gather(np.arange(len(train)))["image"] / 16.0).var(0).mean()
    assert report["reconstruction"]["mean_squared_error"] < 0.7 * variance
    assert report["probe"]["features"]["accuracy"] > 0.7
    assert ("table" in report) == (kind == "sparse")
    for name in ("reconstructions", "filters"):
        assert (tmp_path / "r" / "samples" / f"{name}.png").exists()
