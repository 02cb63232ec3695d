"""Imports every module but those that need PyTorch, and says how many there are: `python -m tests.import_all`."""

import importlib
import pkgutil

from absl import flags

import configs
import diffjax
import experiments

names = [
    module.name
    for package in (diffjax, experiments, configs)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.rpartition(".")[2].startswith("torch_")
]
for name in names:
    for flag in list(flags.FLAGS):  # programs that are run one by one define flags of the same name
        delattr(flags.FLAGS, flag)
    importlib.import_module(name)
print(f"{len(names)} modules imported")
