"""File system paths, as a user writes them."""

import re
from pathlib import Path

from diffjax.errors import InputError


def local(path: str | Path, field: str) -> Path:
    """`path` with ~ expanded. `field` is what errors call it.

    Raises:
        InputError: for a remote address such as gs://bucket/run, which would otherwise become a local directory of that
            name; and for ~ if there is no home directory.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", str(path)):  # a Path has made one slash of two; C:/ is a drive
        raise InputError(f"{field} = {str(path)!r} is a remote place; name a local directory, or mount it as one")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{field} = {str(path)!r} has no home directory to begin with; set HOME, or write the path without ~"
        ) from None
