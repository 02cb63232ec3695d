"""Decoded image sets on disk, so that a set is decoded once per machine.

Each set is one uncompressed .npz in $DIFFJAX_CACHE or ~/.cache/diffjax. Its name holds a hash of everything the arrays
depend on, so an entry is never stale. Its zip container holds a CRC-32 of each array, which numpy checks on reading, so
damage is noticed. It is written under a temporary name and then renamed, so a file is always complete. The cache can
only save time: if anything fails here, the set is decoded again.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from diffjax.paths import local

Arrays = tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " m"]]  # images, and labels or what was found of files


def cached(title: str, facts: dict, make: Callable[[], Arrays]) -> Arrays:
    """(images, labels) from the cache, or from make(), which is then cached.

    title: the readable beginning of the file's name. facts: everything the arrays depend on, as JSON values.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = _directory() / f"{title.replace('/', '_')}-{digest[:32]}.npz"
    if path.exists():
        try:
            # Opened here, because numpy leaves a damaged file that it has opened itself open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return arrays["images"], arrays["labels"]
        except Exception as error:  # a damaged file fails in many ways, all with the same remedy
            logging.getLogger(__name__).warning("Decoding again, as cache file %s is damaged: %s", path, error)
    images, labels = make()
    try:
        _write(path, images, labels)
    except OSError as error:
        logging.getLogger(__name__).warning("Not cached, the next run decodes again: %s", error)
    return images, labels


def _directory() -> Path:
    return local(os.environ.get("DIFFJAX_CACHE") or "~/.cache/diffjax", "DIFFJAX_CACHE")


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            np.savez(file, images=images, labels=labels)
            file.flush()
            os.fsync(file.fileno())  # else a power cut after the rename could leave an empty file
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise
