"""A set of images in files or records of a person's own: read once whole, what cannot be read left out and counted.

Reading all at the beginning is what makes the set's size known, and the rest of a run safe from a broken file. What was
found is kept in the cache (cache.py), so that the next run begins at once.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from diffjax.data import image_files
from diffjax.data.cache import Arrays, cached
from diffjax.data.dataset import AT_ONCE, Dataset
from diffjax.data.image_files import CHANGES
from diffjax.errors import InputError
from diffjax.extras import needs_run

READER = 1  # raised whenever the same files come to give other pixels, so that no cache entry is stale
IN_MEMORY = 2**30  # bytes of pixels; a larger set is decoded as it is asked for
BROKEN = -1
NAMED = 3  # how many broken files are named
Part = Callable[[int], Int64[np.ndarray, " n"] | slice]  # of so many examples, the numbers of those to take


class Files(NamedTuple):
    """Encoded images.

    title    what errors call the whole: folder '/data/cats'
    opened   number -> what PIL opens
    called   number -> what errors call it
    labels   (n,) classes from 0 on, -1 where it is not known
    classes  their names; empty: there are none, and all labels are 0
    facts    all that pixels depend on but their shape, as JSON values
    """

    title: str
    opened: Callable[[int], Path | BinaryIO]
    called: Callable[[int], str]
    labels: Int32[np.ndarray, " n"]
    classes: tuple[str, ...]
    facts: Any


def of_files(config: Any, files: Files, part: Part) -> Dataset:
    """The images that can be read, those of a part, cropped and resized to config.shape, see `image_files.fit`.

    Raises `InputError` if config.shape is no image's, or no file can be read.
    """
    shape = image_shape(config)
    num = len(files.labels)
    in_memory = config.get("in_memory", True) and num * int(np.prod(shape)) <= IN_MEMORY
    facts = {"files": files.facts, "shape": shape, "reader": READER, "in_memory": in_memory}
    images, found = cached(f"{config.name}-{Path(config.dir).name}", facts, lambda: _read_all(files, shape, in_memory))
    # What can be read by now was not the file's fault, but the disk's.
    if not all(_reason(files, i) for i in np.flatnonzero(found == BROKEN).tolist()):
        images, found = _read_all(files, shape, in_memory)
    readable = np.flatnonzero(found != BROKEN)
    note = told(files, found)
    if not len(readable):
        raise InputError(f"{note}; give it images that can be read.")
    labels, kept = files.labels[readable][part(len(readable))], readable[part(len(readable))]
    if in_memory:
        images = images[part(len(readable))]

    def gather(indices):
        return {"image": images[indices] if in_memory else decode(kept[indices]), "label": labels[indices]}

    def decode(numbers):
        pixels = np.empty((len(numbers), *shape), np.uint8)

        def fill(places):
            for i in places:
                pixels[i], _ = _read(files, numbers[i], shape)

        image_files.in_threads(fill, len(numbers))
        return pixels

    return Dataset(config.name, shape, 256, len(kept), gather, max(len(files.classes) - 1, 0), note)


def image_shape(config: Any) -> tuple[int, int, int]:
    """config.shape. Raises `InputError` if it is not that of a grey image or one in colour."""
    shape = tuple(config.shape)
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(f"data.shape={shape} must be (height, width, 1 or 3) for the set {config.name!r}.")
    return shape


def as_bits(changes: set[str]) -> int:
    """One number for some of `CHANGES`."""
    return sum(1 << bit for bit, name in enumerate(CHANGES) if name in changes)


def told(files: Files, found: Int32[np.ndarray, " n"]) -> str:
    """What became of the files, in one line."""
    broken = np.flatnonzero(found == BROKEN)
    said = [f"{files.title}: {len(found) - len(broken)} images"]
    if files.classes:
        names = [f"{i} {name!r}" for i, name in enumerate(files.classes[:10])]
        said.append(f"classes {', '.join(names)}{' ...' if len(files.classes) > 10 else ''}")
        if unknown := int((files.labels == -1).sum()):
            said.append(f"{unknown} in no class")
    for bit, words in enumerate(CHANGES.values()):
        if num := int(((found != BROKEN) & (found >> bit & 1 == 1)).sum()):
            said.append(f"{num} {words}")
    if len(broken):
        first = ", ".join(files.called(i) for i in broken[:NAMED]) + (", ..." if len(broken) > NAMED else "")
        said.append(f"{len(broken)} left out ({first}): the first {_reason(files, broken[0])}")
    return "; ".join(said)


def _reason(files: Files, number: int) -> str:
    """Why it cannot be read; "" if it can."""
    try:
        image_files.converted(files.opened(number), "", 1)
    except InputError as error:
        return str(error).strip(". ")
    return ""


def _read(files: Files, number: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, set[str]]:
    image, changes = image_files.converted(files.opened(number), files.called(number), shape[2])
    if image.height < shape[0] or image.width < shape[1]:
        changes.add("enlarged")
    return image_files.fit(image, shape), changes


def _read_all(files: Files, shape: tuple[int, int, int], in_memory: bool) -> Arrays:
    """The pixels of all that can be read, or none of them; and of each file, BROKEN, or a bit for each change."""
    with needs_run():
        from tqdm import tqdm

    num = len(files.labels)
    found = np.zeros(num, np.int32)
    images = np.empty((num if in_memory else 0, *shape), np.uint8)

    def look(some: Int64[np.ndarray, " n"], places: Int64[np.ndarray, " m"]) -> None:
        for number in some[places]:
            try:
                pixels, changes = _read(files, number, shape)
            except InputError:
                found[number] = BROKEN
                continue
            found[number] = as_bits(changes)
            if in_memory:
                images[number] = pixels

    with tqdm(total=num, desc=f"reading {files.title}", unit="image", disable=None) as progress:
        for first in range(0, num, AT_ONCE):
            some = np.arange(first, min(first + AT_ONCE, num))
            image_files.in_threads(functools.partial(look, some), len(some))
            progress.update(len(some))
    return images if not in_memory or (found != BROKEN).all() else images[found != BROKEN], found
