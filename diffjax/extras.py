"""Optional dependencies (extras). If one is missing, the error is one sentence that says how to install it.

run         data sets, training and the command line
features    the weights of EfficientNet-Lite0, and files of weights in safetensors
chorales    the set of Bach's chorales
weights     only files of weights in safetensors
codec       examples as bits: the coder of diffjax.coding
wandb       logs at Weights & Biases
"""

import contextlib
from collections.abc import Iterator

from diffjax.errors import InputError

PURPOSES = {
    "codec": "codes of examples need",
    "chorales": "data.name='chorales' needs",
    "run": "data sets, training and the command line need",
    "features": "the features of published networks need",
    "wandb": "logging.wandb = True needs",
    "weights": "files of weights in safetensors need",
}


class MissingExtra(InputError, ImportError):
    """An `ImportError` for code that imports, and an `InputError` for the command line."""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """A context for imports of an extra's packages.

    Raises `MissingExtra` if one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(error, extra) from None


def needs_run() -> contextlib.AbstractContextManager[None]:
    return needs("run")


def needs_features() -> contextlib.AbstractContextManager[None]:
    return needs("features")


def needs_weights() -> contextlib.AbstractContextManager[None]:
    return needs("weights")


def needs_wandb() -> contextlib.AbstractContextManager[None]:
    return needs("wandb")


def missing(error: ModuleNotFoundError, extra: str = "run") -> MissingExtra:
    """The exception that replaces `error`."""
    return MissingExtra(
        f"{error.name} is not installed, which {PURPOSES[extra]}: pip install"
        f" 'diffjax[{extra}]' (from a clone: pip install -e '.[{extra}]')"
    )
