"""Measures the cost of a training step on this machine, and the cost of a run besides its steps.

    python -m experiments.benchmarks.training [--config=FILE] [--batch=N] [--rounds=6] [--steps=400]

Steps: three variants (as configured, state not donated, remat), each in a process that stays warm. They run in turn,
each with a product of matrices. Printed: images/s, the step's FLOP/s as a fraction of the product's (the step's FLOPs
are counted in the program as written, without what remat repeats), and the peak memory of the process.

Runs: `experiments.main` runs twice, first with an empty compilation cache, then with the cache of the first run.
Printed: seconds from the start of training to the end of the first step, images/s, and the fraction of the time spent
waiting for data.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from experiments.benchmarks.sides import ROOT, Side

VARIANTS = ("as configured", "not donated", "remat")

_CONFIG = flags.DEFINE_string("config", "configs/digits.py", "what to train")
_BATCH = flags.DEFINE_integer("batch", 64, "examples a step", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 6, "measurements of each variant", lower_bound=1)
_COUNT = flags.DEFINE_integer("count", 10, "steps a measurement", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 400, "steps of the runs; 0: no runs", lower_bound=0)


def main(_: list[str]) -> None:
    path, batch = _CONFIG.value, _BATCH.value
    sides = {v: Side(sys.executable, "jax_training", path, str(batch), v) for v in VARIANTS}
    rounds = [
        {
            v: (
                side.ask(job="train", batch=batch, count=_COUNT.value)["seconds"],
                side.ask(job="multiply", batch=0, count=5)["seconds"],
            )
            for v, side in sides.items()
        }
        for _ in range(_ROUNDS.value)
    ]
    reports = {v: side.ask(job="report") for v, side in sides.items()}
    size, flops = (reports[VARIANTS[0]]["parameters"][name] for name in ("size", "flops"))
    product = statistics.median(2 * 2048**3 / r[VARIANTS[0]][1] for r in rounds)
    print(f"{path}, batch {batch}: {size:,} parameters, {flops / 1e9:.1f} GFLOP a step")
    print(f"products of matrices: {product / 1e9:.0f} GFLOP/s")
    print(
        "step            images/s   of the products' FLOP/s   time, configured = 1: median (least .. most)   peak GiB"
    )
    for v in VARIANTS:
        seconds = statistics.median(r[v][0] for r in rounds)
        fraction = statistics.median(flops / r[v][0] / (2 * 2048**3 / r[v][1]) for r in rounds)
        ratios = sorted(r[v][0] / r[VARIANTS[0]][0] for r in rounds)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        peak = reports[v]["peak_bytes"] / 2**30
        print(f"{v:14s} {batch / seconds:9.1f} {fraction:25.2f}   {spread:>43s} {peak:10.2f}", flush=True)
    for side in sides.values():
        side.close()
    if _STEPS.value:
        _runs(path, batch)


def _runs(path: str, batch: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{directory}/compiled"}
        for name in ("cold", "warm"):
            workdir = Path(directory) / name
            arguments = [f"--config={path}", f"--workdir={workdir}", f"--config.training.batch_size={batch}"]
            arguments += [f"--config.training.{field}=0" for field in ("eval_every", "save_every")]
            arguments += [f"--config.training.steps={_STEPS.value}", "--config.evaluation.num_examples=16"]
            command = [sys.executable, "-m", "experiments.main", *arguments]
            subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
            logs = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
            logs = [log for log in logs if "loss" in log]
            speed, wait = (statistics.median(log[key] for log in logs) for key in ("images_per_second", "input_wait"))
            print(
                f"run, cache {name}: first step after {logs[0]['first_step_seconds']:.1f} s, {speed:.1f} images/s, "
                f"{100 * wait:.2f}% of the time spent waiting for data",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
