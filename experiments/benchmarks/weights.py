"""Weights of diffusers in diffjax, and back: are the networks and their samples the same?

    python -m experiments.benchmarks.weights [--models=small,defaults,scale_shift,cifar10] [--venv=DIR]

diffusers makes a `UNet2DModel` with random weights and writes it. `diffjax.nets.published` makes a workdir of it. Two
images go through both networks, and 50 steps of DDIM begin with the same noise. Then the workdir is written as a
folder, which diffusers reads and runs in its turn. Printed are the largest differences, as shares of the largest
output. The forward pass must agree to 1e-4, samples to 1e-3. PyTorch has an environment of its own: sides.py.
"""

import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from diffjax import samplers
from experiments import weights
from experiments.benchmarks.sides import ROOT, VENV, torch_python
from experiments.opened import Run, open_saved
from experiments.parameters import restore_ema
from experiments.workdir import read_config

_MODELS = flags.DEFINE_list("models", ["small", "defaults", "scale_shift", "cifar10"], "of torch_weights.py")
_VENV = flags.DEFINE_string("venv", VENV, "PyTorch's environment")


def ours(run: Run, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of our network, under the names of theirs."""
    _, params = restore_ema(run, None)
    config = read_config(run.directory)
    net = weights.networks.of_images(config.net, 3)
    found = {"out": jax.jit(net.apply)({"params": params}, given["x"], given["t"].astype(np.float32))}
    if "sample" in given:
        process, said = run.model.kernels(params)
        stepper = samplers.ddim(process)
        times = jnp.asarray([*((given["timesteps"] + 1) / 1000), 0.0], jnp.float32)

        def predict(xt, t):
            return said(xt, jnp.broadcast_to(t, xt.shape[:1]))

        def step(state, pair):
            return stepper.step(jax.random.key(0), predict, state, *pair), None

        walk = jax.jit(lambda x: jax.lax.scan(step, stepper.init(x), (times[:-1], times[1:]))[0].x)
        found["sample"] = walk(given["x"][:1])
    return {name: np.asarray(value) for name, value in found.items()}


def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> str:
    """The differences as text. Raises an error if they are too large."""
    told = []
    for name, limit in (("out", 1e-4), ("sample", 1e-3)):
        if name in a:
            difference = np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()
            told.append(f"{name} {difference:.1e}")
            if not difference < limit:
                raise SystemExit(f"{name} differs by {difference}, more than {limit}")
    return ", ".join(told)


def main(argv: list[str]) -> None:
    del argv
    python, names = torch_python(Path(_VENV.value)), _MODELS.value
    with tempfile.TemporaryDirectory() as directory:

        def of_torch(job: str) -> None:
            command = [python, "-m", "experiments.benchmarks.torch_weights", job, ",".join(names), directory]
            subprocess.run(command, check=True, cwd=ROOT)

        of_torch("write")
        for name in names:
            place = Path(directory) / name
            weights.main([str(place / "theirs"), str(place / "run")])
            theirs = dict(np.load(place / "theirs.npz"))
            told = apart(ours(open_saved(place / "run"), theirs), theirs)
            print(f"{name}: ours beside theirs: {told}; std of the output {theirs['out'].std():.2f}", flush=True)
            weights.main([str(place / "run"), str(place / "ours")])
        of_torch("read")
        for name in names:
            place = Path(directory) / name
            told = apart(dict(np.load(place / "ours.npz")), dict(np.load(place / "theirs.npz")))
            print(f"{name}: written by us and run by diffusers, beside theirs: {told}", flush=True)


if __name__ == "__main__":
    app.run(main)
