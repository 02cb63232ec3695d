"""Samples of a class from the command line."""

import numpy as np
import pytest
from command import QUICK, call, refused

pytestmark = pytest.mark.slow
CFG = """
from configs import cfg_digits

def get_config():
    config = cfg_digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.diffusion.update(num_steps=10, betas=(0.01, 0.5))
    config.sampling.update(steps=3)
    config.evaluation.update(num_examples=30, batch_size=16, grid=9, parzen_samples=0)
    config.training.update(steps=20, batch_size=32, log_every=5, eval_every=0, save_every=0)
    return config
"""  # a transformer would know nothing of classes after so few steps: it begins with a gate of 0


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guidance")
    (folder / "cfg.py").write_text(CFG)
    result = call(f"--config={folder}/cfg.py", f"--workdir={folder}/run")
    assert result.returncode == 0, result.stderr
    return folder / "run"


def images_of(workdir, *arguments):
    """The pixels that --mode=sample writes, and the name of their file."""
    before = set((workdir / "samples").glob("*.npz"))
    result = call("--mode=sample", f"--workdir={workdir}", "--num=10", *arguments)
    assert result.returncode == 0, result.stderr
    (path,) = set((workdir / "samples").glob("*.npz")) - before
    return np.load(path)["images"].astype(int), path.name


def test_label_and_scale_ask_for_a_class(conditional):
    # So few steps teach little of classes: a large scale shows it.
    turns, name = images_of(conditional, "--scale=100")
    assert name.startswith("unipc_3_scale_100_step")
    three, name = images_of(conditional, "--label=3", "--scale=100")
    assert name.startswith("unipc_3_scale_100_label_3_step")
    # The same noise: sample 3 of all classes in turn is of class 3, the others are not.
    np.testing.assert_allclose(three[3], turns[3], atol=1)
    assert (np.abs(three - turns).reshape(10, -1).max(1) > 1).sum() >= 8
    weak, _ = images_of(conditional, "--label=3", "--scale=1", "--steps=5", "--sampler=heun")
    assert np.abs(weak - three).max() > 1


def test_what_cannot_be_asked_for_is_said(conditional, tmp_path):
    sample = ("--mode=sample", f"--workdir={conditional}")
    assert "guidance.label must be a class below net.num_classes=10" in refused(call(*sample, "--label=10"))
    assert "sampling.sampler must be one of ancestral" in refused(call(*sample, "--sampler=unip"))
    (tmp_path / "config.py").write_text(QUICK)
    assert call(f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run").returncode == 0
    said = refused(call("--mode=sample", f"--workdir={tmp_path}/run", "--label=3"))
    assert "--label is of guided systems" in said and "this run knows no classes" in said
