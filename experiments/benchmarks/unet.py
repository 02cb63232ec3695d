"""The CIFAR-10 network of DDPM, 35,746,307 parameters, in jax against PyTorch on this machine.

    python -m experiments.benchmarks.unet [--rounds=6] [--venv=DIR]

Both sides train (noise, forward, backward, clipping, Adam, running mean; dropout 0.1) and denoise (network, ancestral
step), each in a process that stays warm and answers over a pipe. Every round asks both, one after the other, so that a
change of the machine's speed meets both alike. Printed: the median time of each, and the median over rounds of the
ratio jax / PyTorch, below 1 where jax is faster. PyTorch gets an environment of its own, made on the first run.
"""

import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("torch==2.13.0", "diffusers==0.42.1", "numpy")
JOBS = (("train", 8, 1), ("train", 16, 1), ("denoise", 16, 4))  # job, batch, steps a measurement

_ROUNDS = flags.DEFINE_integer("rounds", 6, "measurements of each job on each side", lower_bound=1)
_VENV = flags.DEFINE_string("venv", str(Path.home() / ".cache/diffjax/torch-venv"), "PyTorch's environment")


def torch_python(directory: Path) -> str:
    """The interpreter of an environment with PyTorch, made if it does not exist."""
    python = directory / "bin/python"
    if not python.exists():
        print(f"installing {', '.join(REQUIREMENTS)} into {directory}", flush=True)
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    return str(python)


class Side:
    """A worker process: `ask` writes a request and waits for the answer."""

    def __init__(self, python: str, module: str):
        command = [python, "-m", f"experiments.benchmarks.{module}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker {self.process.args[-1]} ended; its error is above")
        return json.loads(answer)


def main(argv: list[str]) -> None:
    del argv
    os.environ["DIFFUSERS_VERBOSITY"] = "error"
    torch_env = torch_python(Path(_VENV.value))
    sides = {"jax": Side(sys.executable, "jax_unet"), "torch": Side(torch_env, "torch_unet")}
    print("job      batch   jax s/step (images/s)   torch s/step (images/s)   jax / torch: median (least .. most)")
    for job, batch, count in JOBS:
        rounds = [
            {name: side.ask(job=job, batch=batch, count=count)["seconds"] for name, side in sides.items()}
            for _ in range(_ROUNDS.value)
        ]
        seconds = {name: statistics.median(r[name] for r in rounds) for name in sides}
        ratios = sorted(r["jax"] / r["torch"] for r in rounds)
        cells = [f"{seconds[name]:12.3f} ({batch / seconds[name]:6.2f})" for name in sides]
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        print(f"{job:8s} {batch:5d} {cells[0]:>22s}    {cells[1]:>22s}   {spread}", flush=True)
    for name, side in sides.items():
        report = side.ask(job="report")
        print(f"{name}: {report['parameters']:,} parameters, peak memory {report['peak_bytes'] / 2**30:.2f} GiB")


if __name__ == "__main__":
    app.run(main)
