"""Half an hour of training, sampling and checkpointing: does the process's memory grow?

    python -m experiments.benchmarks.soak [--minutes=30] [--config=FILE]

The resident memory of `experiments.main` is read every second, from the first evaluation on. A line is fitted to it.
Neighbouring seconds are not independent, so the standard error of the slope is that of a line through the means of ten
blocks.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from scipy.stats import linregress

from experiments.benchmarks.sides import ROOT

BLOCKS = 10

_MINUTES = flags.DEFINE_float("minutes", 30.0, "how long, from the first evaluation on", 0.5)
_CONFIG = flags.DEFINE_string("config", "configs/digits.py", "what to train")


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        arguments = [f"--config={_CONFIG.value}", f"--workdir={directory}/run", "--config.training.steps=1000000000"]
        arguments += [f"--config.training.{name}=100" for name in ("eval_every", "save_every", "log_every")]
        command = [sys.executable, "-m", "experiments.main", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        samples = Path(directory) / "run" / "samples"
        while not (samples.is_dir() and any(samples.iterdir())):
            if process.poll() is not None:
                raise SystemExit("the run ended before its first evaluation")
            time.sleep(1)
        began, seconds, mebibytes = time.monotonic(), [], []
        while (now := time.monotonic() - began) < 60 * _MINUTES.value:
            seconds.append(now)
            mebibytes.append(_resident(process.pid) / 2**20)
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=600)
        last = json.loads((Path(directory) / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        evaluations, kept = len(list(samples.iterdir())), os.listdir(Path(directory) / "run" / "checkpoints")
    minutes, means = (
        np.array([block.mean() for block in np.array_split(values, BLOCKS)])
        for values in (np.array(seconds) / 60, np.array(mebibytes))
    )
    line = linregress(minutes, means)
    print(
        f"{last} steps, {evaluations} evaluations, a checkpoint every 100 steps ({len(kept)} kept), exit code {status}"
    )
    first, end, most = means[0], means[-1], max(mebibytes)
    print(f"resident memory: first tenth {first:.1f} MiB, last tenth {end:.1f} MiB, most {most:.1f} MiB")
    print(f"slope {line.slope:.3f} ± {line.stderr:.3f} MiB a minute over {minutes[-1] - minutes[0]:.1f} minutes")


def _resident(pid: int) -> int:
    """The resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    app.run(main)
