"""The measures of trained systems. Each measure is one file of this package. Importing the package registers them all.

The distances between samples and data are in `diffjax.distances`; those for features of images are also exported here.
"""

import importlib
import pkgutil

from diffjax.distances import (
    frechet_distance,
    frechet_distance_of_moments,
    kernel_distance,
    precision_recall,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["frechet_distance", "frechet_distance_of_moments", "kernel_distance", "precision_recall"]
