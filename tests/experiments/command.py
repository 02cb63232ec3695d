"""The command as a user types it, in a process of its own, and a configuration that trains in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[2]
TINY = """
from configs import digits

def get_config():
    config = digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.diffusion.update(num_steps=10, betas=(0.01, 0.5))
    config.sampling.update(steps=10)
    config.evaluation.update(num_examples=30, batch_size=16, grid=9)
    config.evaluation.parzen_samples = 0
    config.training.update(steps=20, batch_size=32, log_every=5, eval_every=10, save_every=10)
    return config
"""


def run(*arguments, env=None):
    """One device, as a user has it; JAX's cache off, so that a machine's earlier runs do not help."""
    clean = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "TFDS_DATA_DIR")}
    return subprocess.run(
        [sys.executable, "-m", "experiments.main", *arguments],
        cwd=ROOT,
        env=clean | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=1200,
    )


def state_of(workdir, step):
    """The arrays of a checkpoint, read without our code."""
    path = workdir / "checkpoints" / str(step) / "state"
    checkpointer = ocp.StandardCheckpointer()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = dict(checkpointer.metadata(path).item_metadata.tree)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)
    return jax.tree.leaves(checkpointer.restore(path, wanted))
