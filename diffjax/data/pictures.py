"""The user's own images, in files or records. All are read once; those that cannot be read are left out and counted.

Reading all of them first gives the size of the set, and no broken file can stop the run later. The result is kept in
the cache (cache.py), so the next run begins at once.
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

READER = 1  # raise it when a code change gives other pixels for the same files: old cache entries are then unused
IN_MEMORY = 2**30  # bytes of pixels; the images of a larger set are decoded on demand
BROKEN = -1
NAMED = 3  # how many broken files are named
Part = Callable[[int], Int64[np.ndarray, " n"] | slice]  # number of examples -> indices to take


class Files(NamedTuple):
    """Encoded images.

    title    the name of the set in error messages, such as folder '/data/cats'
    opened   index -> what PIL opens
    called   index -> the image's name in error messages
    labels   (n,) classes from 0 on, -1 if not known
    classes  the names of the classes; if empty, there are no classes and all labels are 0
    facts    everything the pixels depend on except their shape, as JSON values
    """

    title: str
    opened: Callable[[int], Path | BinaryIO]
    called: Callable[[int], str]
    labels: Int32[np.ndarray, " n"]
    classes: tuple[str, ...]
    facts: Any


def of_files(config: Any, files: Files, part: Part) -> Dataset:
    """One part of the images that can be read, cropped and resized to config.shape, see `image_files.fit`.

    Raises `InputError` if config.shape is not the shape of an image, or if no file can be read.
    """
    shape = image_shape(config)
    num = len(files.labels)
    in_memory = config.get("in_memory", True) and num * int(np.prod(shape)) <= IN_MEMORY
    facts = {"files": files.facts, "shape": shape, "reader": READER, "in_memory": in_memory}
    images, found = cached(f"{config.name}-{Path(config.dir).name}", facts, lambda: _read_all(files, shape, in_memory))
    # A file that the cache calls broken but that can be read now was not at fault, the disk was: read all again.
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
    """config.shape. Raises `InputError` if it is not the shape of a grey or a colour image."""
    shape = tuple(config.shape)
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise InputError(f"data.shape={shape} must be (height, width, 1 or 3) for the set {config.name!r}.")
    return shape


def as_bits(changes: set[str]) -> int:
    """A subset of `CHANGES` as one number, a bit for each."""
    return sum(1 << bit for bit, name in enumerate(CHANGES) if name in changes)


def told(files: Files, found: Int32[np.ndarray, " n"]) -> str:
    """One line for the user: how many images there are, what was changed and what was left out."""
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
    """Why the image cannot be read; "" if it can."""
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
    """The pixels of all readable images (none unless in_memory); and for each file BROKEN, or a bit for each change."""
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
