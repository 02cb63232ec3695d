"""Compares two workers, jax and PyTorch. Each is a process that stays warm, and they run in turn.

Every round runs both, one after the other, so a change of the machine's speed affects both alike. Printed: the median
time of each, and the median over rounds of the ratio jax / PyTorch, below 1 if jax is faster. PyTorch has its own
environment, made on the first run.
"""

import json
import statistics
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENV = str(Path.home() / ".cache/diffjax/torch-venv")
REQUIREMENTS = ("torch==2.13.0", "diffusers==0.42.1", "numpy")


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

    def __init__(self, python: str, module: str, *arguments: str):
        command = [python, "-m", f"experiments.benchmarks.{module}", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker {self.process.args[-1]} ended; its error is above")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, jobs: Sequence[tuple[str, int, int]], rounds: int, directory: str) -> None:
    """Runs the modules jax_`name` and torch_`name`. A job is (name, batch size, steps in one measurement)."""
    sides = {"jax": Side(sys.executable, f"jax_{name}"), "torch": Side(torch_python(Path(directory)), f"torch_{name}")}
    print("job      batch   jax s/step (images/s)   torch s/step (images/s)   jax / torch: median (least .. most)")
    for job, batch, count in jobs:
        asked = [
            {name: side.ask(job=job, batch=batch, count=count)["seconds"] for name, side in sides.items()}
            for _ in range(rounds)
        ]
        seconds = {name: statistics.median(r[name] for r in asked) for name in sides}
        ratios = sorted(r["jax"] / r["torch"] for r in asked)
        cells = [f"{seconds[name]:12.5f} ({batch / seconds[name]:8.2f})" for name in sides]
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        print(f"{job:8s} {batch:5d} {cells[0]:>22s}    {cells[1]:>22s}   {spread}", flush=True)
    for name, side in sides.items():
        report = side.ask(job="report")
        print(f"{name}: {report['parameters']:,} parameters, peak memory {report['peak_bytes'] / 2**30:.2f} GiB")
