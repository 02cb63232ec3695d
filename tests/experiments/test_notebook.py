"""Runs by functions, as in a notebook: one that is interrupted, taken up again, measured and looked at."""

import json
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from command import QUICK, ROOT
from PIL import Image
from wandb_stub import wandb

import experiments
from configs import cfg_digits
from diffjax.errors import InputError
from experiments import notebook
from experiments.writer import Writer


@pytest.fixture(scope="module")
def config():
    namespace = {}
    exec(QUICK, namespace)
    config = namespace["get_config"]()
    config.logging.wandb = True
    return config


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """The results of two calls for one run: the stop button is pressed while step 15 is logged."""
    workdir = tmp_path_factory.mktemp("notebook") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook, "_prepare", lambda: None)  # that is for a process that begins
        scalars = Writer.scalars

        def press(self, step, values):
            scalars(self, step, values)
            if step == 15 and not patched:
                patched.append(step)
                signal.raise_signal(signal.SIGINT)

        patch.setitem(sys.modules, "wandb", wandb())
        patched = []
        patch.setattr(Writer, "scalars", press)
        yield experiments.train(config, workdir), experiments.train(config, workdir)


def test_a_run_at_weights_and_biases_has_the_lines_of_metrics_jsonl_and_the_pictures(runs):
    path = runs[1].workdir
    logs = sys.modules["wandb"].runs
    assert [log.finished for log in logs] == [True, True] and logs[0].given["config"]["system"] == "vae"
    logged = [line for log in logs for line in log.logged]
    scalars = [line for line in logged if not any(isinstance(value, tuple) for value in line.values())]
    assert scalars == [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    shown = [line for line in logged if line not in scalars]
    assert {(line["step"], *sorted(line.keys() - {"step"})) for line in shown} == {
        (10, "samples"), (20, "samples"), (20, "manifold"), (20, "reconstructions"),
    }  # fmt: skip


def test_an_interrupted_training_is_saved_and_the_same_call_goes_on(runs, config):
    first, second = runs
    assert (first.step, first.finished, second.step, second.finished) == (15, False, 20, True)
    assert json.loads((second.workdir / "eval.json").read_text())["step"] == 20
    steps, losses = experiments.metrics(second)["loss"]
    assert steps.tolist() == [5, 10, 15, 20] and np.isfinite(losses).all()
    assert (second.report["command"], experiments.evaluate(second)["step"]) == ("", 20)
    assert f"<td>{second.report['bits_per_dim']:.6g}</td>" in (second.workdir / "report.html").read_text()
    assert config.training.steps == 20 and json.loads((second.workdir / "config.json").read_text())


def test_samples_are_those_that_are_written(runs):
    samples = experiments.sample(runs[1], 20, seed=3)
    (path,) = runs[1].workdir.glob("samples/*seed_3.npz")
    assert samples.shape == (20, 8, 8, 1)
    np.testing.assert_array_equal(np.round((np.clip(samples, -1, 1) + 1) * 127.5), np.load(path)["images"])


def test_an_evaluation_follows_its_overrides_and_refuses_others(runs):
    report = experiments.evaluate(runs[1].workdir, overrides={"evaluation.num_examples": 16})
    assert (report["num_examples"], report["step"]) == (16, 20)
    with pytest.raises(InputError, match=r"evaluation\.num_exampels, which is not a field of .*has num_examples"):
        experiments.evaluate(runs[1], overrides={"evaluation.num_exampels": 16})
    with pytest.raises(InputError, match="'some' does not fit config"):
        experiments.evaluate(runs[1], overrides={"evaluation.num_examples": "some"})
    with pytest.raises(InputError, match="--label is of guided systems"):
        experiments.sample(runs[1], 4, label=3)
    with pytest.raises(InputError, match=r"train\(\) needs a configuration"):
        experiments.train()


def test_the_restored_model_draws_what_the_run_draws(runs):
    import jax

    from diffjax.evaluation.drawing import Sampler
    from diffjax.mesh import DATA_PARALLEL, make_mesh

    model, params, step = experiments.restore(runs[1])
    assert step == 20
    ours = Sampler(model, 16, make_mesh(DATA_PARALLEL))(
        params, jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 3), 0)
    )
    np.testing.assert_allclose(ours, experiments.sample(runs[1], 16, seed=3), atol=1e-5)


def test_pictures_are_shown_where_there_is_a_notebook(runs, monkeypatch):
    paths = experiments.show(runs[1])
    assert [p.name for p in paths if p.match("step_*")] == ["step_00000020.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 1
    assert [p.name for p in experiments.show(runs[1].workdir, "step_*")] == ["step_00000010.png", "step_00000020.png"]
    shown = []
    display = types.ModuleType("IPython.display")
    display.Image, display.display = (lambda data: data), shown.append
    shell = types.ModuleType("IPython")
    shell.display, shell.get_ipython, shell.version_info = display, lambda: object(), (9, 0)  # matplotlib asks, too
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    experiments.show(runs[1])
    assert shown == [p.read_bytes() for p in paths]
    plot = experiments.curves(runs[1], "loss")
    assert shown[-1].startswith(b"\x89PNG") and plot.axes[0].lines[0].get_xdata().tolist() == [5, 10, 15, 20]
    with pytest.raises(InputError, match=r"los is no metric of this run; it has .*loss"):
        experiments.curves(runs[1], "los")


def test_a_class_is_asked_of_a_guided_system():
    config = cfg_digits.get_config()
    notebook.opened.ask(config, "ddim", 7, 3, 2.0)
    assert (config.sampling.sampler, config.sampling.steps) == ("ddim", 7)
    assert (config.guidance.label, config.guidance.scale) == (3, 2.0)


def test_the_package_imports_nothing_before_it_is_asked():
    """jax's flags must stand before jax is imported."""
    code = "import sys, experiments.suggestions; assert 'jax' not in sys.modules and 'train' in dir(experiments)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        experiments.trian  # noqa: B018
