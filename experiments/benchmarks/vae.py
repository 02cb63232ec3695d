"""The variational auto-encoder of configs/vae_mnist.py, in jax against PyTorch eager on this machine.

    python -m experiments.benchmarks.vae [--rounds=15] [--venv=DIR]

Both sides train on the same bits: draw of z, ELBO, backward, Adam, running mean of the weights. See sides.py for how
they are compared.
"""

from absl import app, flags

from experiments.benchmarks.sides import VENV, compare

JOBS = (("train", 100, 100),)

_ROUNDS = flags.DEFINE_integer("rounds", 15, "measurements on each side", lower_bound=1)
_VENV = flags.DEFINE_string("venv", VENV, "PyTorch's environment")


def main(argv: list[str]) -> None:
    del argv
    compare("vae", JOBS, _ROUNDS.value, _VENV.value)


if __name__ == "__main__":
    app.run(main)
