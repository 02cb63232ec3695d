"""The configuration of an existing run, as a file for --config: `--config=experiments/saved.py:DIR`."""

from ml_collections import ConfigDict

from diffjax.paths import local
from experiments.workdir import read_config


def get_config(workdir: str) -> ConfigDict:
    return read_config(local(workdir, "workdir"))
