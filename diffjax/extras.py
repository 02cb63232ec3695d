"""What only runs need, data sets, training and the command line, is the extra `run`: its absence is one sentence."""

import contextlib
from collections.abc import Iterator

from diffjax.errors import InputError


class MissingExtra(InputError, ImportError):
    """An `ImportError` to who imports, an `InputError` to who runs the command line."""


@contextlib.contextmanager
def needs_run() -> Iterator[None]:
    """Around imports of packages of the extra `run`.

    Raises `MissingExtra` if one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(error) from None


def missing(error: ModuleNotFoundError) -> MissingExtra:
    """The sentence that takes the place of `error`."""
    return MissingExtra(
        f"{error.name} is not installed, which data sets, training and the command line need: pip install"
        " 'diffjax[run]' (from a clone: pip install -e '.[run]')"
    )
