"""The CIFAR-10 network of DDPM, 35,746,307 parameters, in jax against PyTorch on this machine.

    python -m experiments.benchmarks.unet [--rounds=6] [--venv=DIR]

Both sides train (noise, forward, backward, clipping, Adam, running mean; dropout 0.1) and denoise (network, ancestral
step). See sides.py for how they are compared.
"""

import os

from absl import app, flags

from experiments.benchmarks.sides import VENV, compare

JOBS = (("train", 8, 1), ("train", 16, 1), ("denoise", 16, 4))

_ROUNDS = flags.DEFINE_integer("rounds", 6, "measurements of each job on each side", lower_bound=1)
_VENV = flags.DEFINE_string("venv", VENV, "PyTorch's environment")


def main(argv: list[str]) -> None:
    del argv
    os.environ["DIFFUSERS_VERBOSITY"] = "error"
    compare("unet", JOBS, _ROUNDS.value, _VENV.value)


if __name__ == "__main__":
    app.run(main)
