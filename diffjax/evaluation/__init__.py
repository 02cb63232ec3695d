"""What a trained system is measured by. A measure is a file of this package; all of them are imported, and so known."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
