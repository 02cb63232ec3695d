"""What Weights & Biases is told of a training, by a module in its place; of a whole run: test_notebook.py."""

import sys

import numpy as np
import pytest
from command import call, refused
from wandb_stub import wandb

from configs import digits
from diffjax.errors import InputError
from diffjax.zoo import Film, Grid
from experiments.opened import open_run
from experiments.wandb_log import WandbLog
from experiments.workdir import plain
from experiments.writer import Writer


def test_metrics_and_pictures_go_there_with_their_steps(tmp_path, monkeypatch):
    module = wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    images = np.zeros((4, 8, 8, 1), np.float32)
    for start in (0, 5):  # the second time it goes on
        writer = Writer(tmp_path)
        writer.begin(start, {"system": "vae"}, wandb=True)
        writer.scalars(start + 5, {"loss": 0.5})
        writer.samples(start + 5, Grid(images, 2))
        writer.figures(start + 5, lambda: {"film": Film(images[None])})
        writer.close()
    first, second = module.runs
    assert (first.given["project"], first.given["config"]) == ("diffjax", {"system": "vae"})
    assert first.given["id"] == second.given["id"] and second.given["resume"] == "allow"
    assert first.metrics == [("*", {"step_metric": "step"})] and first.finished and second.finished
    samples = tmp_path / "samples"
    assert second.logged == [
        {"step": 10, "loss": 0.5},
        {"step": 10, "samples": ("image", str(samples / "step_00000010.png"))},
        {"step": 10, "film": ("video", str(samples / "film.gif"), "gif")},
    ]
    assert (samples / "film.gif").exists()


def test_the_project_is_that_of_the_environment(tmp_path, monkeypatch):
    module = wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    WandbLog(tmp_path, {})
    assert module.runs[0].given["project"] == "mine"


def test_it_is_off_and_not_imported_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    writer = Writer(tmp_path)
    writer.begin(0, {})
    writer.scalars(1, {"loss": 1.0})
    writer.close()
    config = digits.get_config()
    assert not open_run(config, tmp_path).wandb
    del config.logging  # as of older runs
    assert not open_run(config, tmp_path).wandb and "logging" not in plain(config)


def test_what_is_wrong_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    says = refused(call("--config.logging.wandb=True", f"--workdir={tmp_path}/r"))
    assert "wandb is not installed, which logging.wandb = True needs: pip install 'diffjax[wandb]'" in says
    assert not (tmp_path / "r").exists()
    monkeypatch.setitem(sys.modules, "wandb", wandb(refuses="api_key not configured\n(no-tty)."))
    with pytest.raises(InputError, match=r"cannot begin \(api_key not configured \(no-tty\)\); log in by"):
        WandbLog(tmp_path, {})
    config = digits.get_config()
    with config.ignore_type():
        config.logging.wandb = "sometimes"
    with pytest.raises(InputError, match=r"logging\.wandb = 'sometimes' must be True or False"):
        open_run(config, tmp_path)
