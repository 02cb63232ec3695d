"""Runs the configurations: with `python -m experiments.main` on the command line, with these functions in a notebook.

All imports are lazy, because the command line must set flags before jax is imported.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.notebook import Restored, Result, curves, evaluate, metrics, restore, sample, show, train

__all__ = ["Restored", "Result", "curves", "evaluate", "metrics", "restore", "sample", "show", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from experiments import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
