"""The command as a user types it, in a process of its own or in this one; a configuration that trains in seconds."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import grain  # noqa: F401  It defines flags, which flagsaver would take away again.
import jax
import orbax.checkpoint as ocp
from absl.testing import flagsaver

from experiments import main

ROOT = Path(__file__).parents[2]
TINY = """
from configs import digits, dit_digits

def get_config():
    config = digits.get_config()
    classes = config.net.num_classes
    config.net = dit_digits.get_config().net  # it compiles in two thirds of the U-Net's time
    config.net.update(width=16, depth=1, heads=1, patch_size=4, num_classes=classes)
    config.diffusion.update(num_steps=10, betas=(0.01, 0.5))
    config.sampling.update(steps=10)
    config.evaluation.update(num_examples=30, batch_size=16, grid=9)
    config.evaluation.parzen_samples = 0
    config.training.update(steps=20, batch_size=32, log_every=5, eval_every=10, save_every=10)
    return config
"""
QUICK = """
from configs import vae_digits

def get_config():
    config = vae_digits.get_config()
    config.net.update(latents=(2,), features=((64,),))
    config.evaluation.update(num_examples=30, batch_size=16, grid=9, num_weights=0, weighted_examples=0)
    config.training.update(steps=20, batch_size=32, log_every=5, eval_every=10, save_every=10)
    return config
"""  # for what does not depend on the system: it compiles in a third of TINY's time
# Of conftest.py, for processes that are started here or in a test: one device, and quick compilation.
FLAGS = os.environ.get("XLA_FLAGS", "").replace("--xla_force_host_platform_device_count=8", "")


def run(*arguments, env=None, cwd=ROOT):
    """One device, as a user has it. Earlier compilations help only where the tests are told of a place to keep them."""
    clean = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
    clean["XLA_FLAGS"] = FLAGS
    clean.setdefault("JAX_ENABLE_COMPILATION_CACHE", str("JAX_COMPILATION_CACHE_DIR" in clean).lower())
    return subprocess.run(
        [sys.executable, "-m", "experiments.main", *arguments],
        cwd=cwd,
        env=clean | {"PYTHONPATH": str(ROOT)} | (env or {}),
        capture_output=True,
        text=True,
        timeout=2400,
    )


def call(*arguments, also=main.main):
    """The same in this process, with its devices and its jax: seconds quicker. `also` is called with the flags set."""
    argv = ["experiments/main.py", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.modules.pop("config_config", None)  # the last call's file, whose names this one's would inherit
    with contextlib.ExitStack() as during:
        during.enter_context(flagsaver.flagsaver())
        during.enter_context(mock.patch.object(sys, "argv", argv))
        during.enter_context(mock.patch.object(main, "_prepare"))  # that is for a process that begins
        during.enter_context(contextlib.chdir(ROOT))
        during.enter_context(contextlib.redirect_stdout(out))
        during.enter_context(contextlib.redirect_stderr(err))
        try:
            also(main._parse(argv))
        except SystemExit as leaves:
            code = leaves.code
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def refused(result):
    """The one sentence of a command that ended with exit code 1."""
    assert result.returncode == 1, result
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def state_of(workdir, step):
    """The arrays of a checkpoint, read without our code."""
    path = workdir / "checkpoints" / str(step) / "state"
    checkpointer = ocp.StandardCheckpointer()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = dict(checkpointer.metadata(path).item_metadata.tree)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)
    return jax.tree.leaves(checkpointer.restore(path, wanted))
