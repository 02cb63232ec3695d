"""What a trained system is measured by. A measure is a file of this package; all of them are imported, and so known.

The distances between samples and data are `diffjax.distances`; those that measure images are here by name, too.
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
