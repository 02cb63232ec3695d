"""A folder of image files: whole images, or random crops.

Files are read in the order of their paths, sub-folders included. Each sub-folder directly in the folder is a class,
with all images in it at any depth. Classes are numbered in the order of their names. If there are classes, an image
that lies directly in the folder has no known class. See `image_files.converted` for the file types.
"""

from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data import image_files, textures
from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.image_files import SUFFIXES
from diffjax.data.pictures import BROKEN, Files, Part, as_bits, image_shape, of_files, told
from diffjax.errors import InputError

PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")  # not classes, but splits
CROPPED = 2**32  # the most bytes of images that may be held in memory to take crops from


def read(config: Any, directory: Path, training: Path, part: Part) -> Dataset:
    """The whole images of a folder. `training` is the folder that defines the classes.

    Raises `InputError` if there is no image, or a class that `training` does not have.
    """
    files = _files(directory)
    classes = _classes(training, _files(training) if training != directory else files)
    names = [path.relative_to(directory).parts for path in files]
    of_class = {name: number for number, name in enumerate(classes)}
    if classes and (others := {parts[0] for parts in names if len(parts) > 1} - set(classes)):
        raise InputError(
            f"{str(directory)!r} has the class {min(others)!r}, which {str(training)!r} has not: its classes are"
            f" {', '.join(classes[:10])}."
        )
    labels = [of_class.get(parts[0], -1) if classes else 0 for parts in names]
    return of_files(config, _as_files(directory, files, classes, labels), part)


def crops(config: Any, directory: Path, split: str) -> Dataset:
    """config.num_train or config.num_test random crops of the images, without labels and without resizing.

    They are for textures and similar data, where a few large images are enough. Training crops come from the upper 3/4
    of each image, test crops from the rest, see textures.py. All images are held in memory while crops are taken.

    Raises `InputError` if there is no image, if one is too small, or if they are too large together for memory.
    """
    height, width, channels = image_shape(config)
    num = config.get(f"num_{split}")
    if type(num) is not int or num < 1:
        raise InputError(f"data.num_{split}={num!r} must be a whole number, at least 1: crops are drawn.")
    paths = _files(directory)
    files = _as_files(directory, paths, (), [0] * len(paths))
    images, found, size = [], np.full(len(paths), BROKEN, np.int32), 0
    for i in range(len(paths)):
        try:
            image, changes = image_files.converted(files.opened(i), files.called(i), channels)
        except InputError:
            continue
        found[i] = as_bits(changes)
        images.append(np.asarray(image).reshape(image.height, image.width, channels))
        size += images[-1].size
        if size > CROPPED:
            raise InputError(
                f"data.num_train={config.num_train} asks for crops, but the images of {str(directory)!r} take more than"
                f" {CROPPED >> 30} GiB of memory: set data.num_train=0 to take them whole, or use fewer."
            )
    note = told(files, found)
    if not images:
        raise InputError(f"{note}; give it images that can be read.")
    rng = np.random.default_rng(("train", "test").index(split))
    return from_arrays("folder", textures.crops(rng, images, (height, width), num, split), note=note)


def _as_files(directory: Path, paths: list[Path], classes: tuple[str, ...], labels: list[int]) -> Files:
    return Files(
        title=f"folder {str(directory)!r}",
        opened=paths.__getitem__,
        called=lambda i: str(paths[i]),
        labels=np.array(labels, np.int32),
        classes=classes,
        facts=[_facts(path) for path in paths],
    )


def _facts(path: Path) -> list:
    try:
        found = path.stat()
    except OSError:  # a broken link, counted as a file that cannot be read
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns]


def _files(directory: Path) -> list[Path]:
    """The image files of a folder, at least one."""
    if not directory.is_dir():
        raise InputError(f"data.dir={str(directory)!r} is no directory: name one of {', '.join(SUFFIXES)} files.")
    files = image_files.listed(directory)
    if not files:
        raise InputError(
            f"data.dir={str(directory)!r} has no image file: name a directory of {', '.join(SUFFIXES)} files."
        )
    return files


def _classes(directory: Path, files: list[Path]) -> tuple[str, ...]:
    """The names of the sub-folders with images. Raises `InputError` if these are splits such as train and test."""
    names = sorted({parts[0] for path in files if len(parts := path.relative_to(directory).parts) > 1})
    if len(names) > 1 and all(name in PARTS for name in names) and any(name.startswith("train") for name in names):
        train, test = next(n for n in names if n.startswith("train")), next(n for n in names if n[:5] != "train")
        raise InputError(
            f"data.dir={str(directory)!r} holds the parts {', '.join(names)} of a set: set data.train_split={train!r}"
            f" and data.test_split={test!r}."
        )
    return tuple(names)
