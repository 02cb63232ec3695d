"""Runs of the configurations: `python -m experiments.main` at the command line, these functions in a notebook.

Nothing is imported before it is asked for, because the command line sets flags that must stand before jax is imported.
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
