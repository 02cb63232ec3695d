"""A run that keeps averages of two widths, measured and sampled with these and with one made of its checkpoints."""

import json

import jax
import numpy as np
import pytest
from command import QUICK, call, refused

from diffjax.training.averages import exponent, posthoc_coefficients
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.state import init_state, optimizer
from experiments.opened import open_saved
from experiments.parameters import restore_ema

pytestmark = pytest.mark.slow
WIDTHS = (0.05, 0.1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "quick.py").write_text(QUICK)
    result = call(
        f"--config={root / 'quick.py'}",
        f"--workdir={root / 'r'}",
        "--config.training.ema_widths=(0.05, 0.1)",
        "--config.training.save_every=5",
        "--config.training.keep_every=5",
        "--config.evaluation.ema_width=0.1",
    )
    assert result.returncode == 0, result.stderr
    assert "step 20, ema_width 0.1: " in result.stdout
    return root / "r"


def report(workdir):
    return json.loads((workdir / "eval.json").read_text())


def test_each_width_is_measured_and_sampled_by_itself(workdir):
    trained, bits = report(workdir), {}
    for width in (0.0, 0.1, 0.07):
        result = call("--mode=eval", f"--workdir={workdir}", f"--config.evaluation.ema_width={width}")
        assert result.returncode == 0, result.stderr
        assert report(workdir)["ema_width"] == width
        bits[width] = report(workdir)["bits_per_dim"]
    assert (
        f"ema_width 0.07: of the widths {WIDTHS[0]}, {WIDTHS[1]} in 4 checkpoint(s), with a profile " in result.stdout
    )
    np.testing.assert_allclose(bits[0.1], trained["bits_per_dim"], rtol=1e-5)
    assert len(set(bits.values())) == 3
    for width, name in ((0.07, "_ema_0.07"), (0.0, "")):
        result = call(
            "--mode=sample", f"--workdir={workdir}", "--step=15", "--num=4", f"--config.evaluation.ema_width={width}"
        )
        assert result.returncode == 0, result.stderr
        (path,) = (workdir / "samples").glob(f"*_step_00000015{name}_seed_0.npz")
        assert path.with_suffix(".png").exists()
        assert str(path) in result.stdout


def test_the_weights_are_the_sum_of_what_the_checkpoints_hold(workdir):
    """Of float64, read one by one."""
    run = open_saved(workdir)
    options = {**run.options, "ema_width": 0.07}
    step, made = restore_ema(run._replace(options=options), 15)
    times, gammas = zip(*[(t, exponent(width)) for t in (5, 10, 15) for width in WIDTHS], strict=True)
    coefficients, _ = posthoc_coefficients(times, gammas, 15, exponent(0.07))
    shapes = jax.eval_shape(lambda key: init_state(key, run.model, optimizer(run.settings), WIDTHS), jax.random.key(0))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
    with Checkpointer(run.checkpoints, read_only=True) as checkpointer:
        stored = [x for t in (5, 10, 15) for x in checkpointer.restore(wanted, t)[0].averages]
    total = jax.tree.map(lambda *xs: np.tensordot(coefficients, np.asarray(xs, np.float64), 1), *stored)
    for got, want in zip(jax.tree.leaves(made), jax.tree.leaves(total), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert step == 15


def test_what_cannot_be_had_is_said_in_one_sentence(workdir):
    eval_it = ["--mode=eval", f"--workdir={workdir}"]
    says = refused(call(*eval_it, "--config.evaluation.ema_width=0.4"))
    assert "evaluation.ema_width = 0.4 must be a share of training" in says
    says = refused(call(*eval_it, "--step=5", "--config.evaluation.ema_width=0.25"))
    assert "evaluation.ema_width = 0.25 cannot be had from training.ema_widths = (0.05, 0.1) in 1 checkpoint(s)" in says
    says = refused(call(*eval_it, "--config.training.ema_widths=()", "--config.evaluation.ema_width=0.07"))
    assert "averages/0/" in says and "absent in the model" in says
    says = refused(call(f"--workdir={workdir}", "--config.evaluation.ema_width=0.07"))
    assert "evaluation.ema_width = 0.07 is none of training.ema_widths = (0.05, 0.1), which training keeps" in says
    others = ["--config.training.ema_widths=(0.05,)", "--config.evaluation.ema_width=0"]
    says = refused(call(f"--workdir={workdir}", *others))
    assert "made with another config: training.ema_widths ([0.05, 0.1] there, [0.05] now)" in says
