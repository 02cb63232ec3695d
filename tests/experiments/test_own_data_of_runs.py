"""A person's own folder of images, from the command line to eval.json: trained, interrupted and gone on with."""

import json

import jax
import numpy as np
import pytest
from command import QUICK, call, refused, state_of
from PIL import Image


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Sixty dots in two classes, and a file that is none; a configuration that knows nothing of them."""
    monkeypatch.setenv("DIFFJAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "images" / ("left", "right")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((16, 24), np.uint8)
        pixels[rng.integers(16), rng.integers(12) + 12 * (i % 2)] = 255
        Image.fromarray(pixels).save(path)
    (tmp_path / "images" / "left" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "tiny.py").write_text(QUICK.replace("save_every=10", "save_every=5"))
    return tmp_path


def of(images, workdir, *more):
    data = {"name": "folder", "dir": images / "images", "levels": 256, "test_fraction": 0.2}
    return [f"--config={images}/tiny.py", f"--workdir={images / workdir}", *more] + [
        f"--config.data.{name}={value}" for name, value in data.items()
    ]


def test_a_folder_is_trained_on_and_what_was_left_out_is_said(images):
    wrong = call(*of(images, "w")[:-2])
    assert "data.levels=17, but 'folder' has 256 levels: set data.levels=256" in refused(wrong)
    assert not (images / "w").exists()
    result = call(*of(images, "run", "--config.training.steps=5", "--config.evaluation.num_examples=0"))
    assert result.returncode == 0, result.stderr
    (told,) = [line for line in result.stdout.splitlines() if line.startswith("folder")]
    for words in ("60 images", "0 'left', 1 'right'", "1 left out", "broken.jpg", "cannot be read"):
        assert words in told, told
    assert "on 12 held-out examples" in result.stdout
    assert json.loads((images / "run/eval.json").read_text())["step"] == 5


@pytest.mark.slow
def test_a_run_on_a_folder_goes_on_as_if_it_had_not_stopped(images):
    for workdir, steps in (("whole", 10), ("parts", 5), ("parts", 10)):
        result = call(*of(images, workdir, f"--config.training.steps={steps}"))
        assert result.returncode == 0, result.stderr
    jax.tree.map(np.testing.assert_array_equal, state_of(images / "parts", 10), state_of(images / "whole", 10))
