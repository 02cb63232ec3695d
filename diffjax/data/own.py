"""A person's own data: a folder of images, arrays in a file, a table of numbers, a folder of Hugging Face's `datasets`.

The two parts come about in one of two ways, the same for all kinds.

- data.train_split and data.test_split name two places in data.dir: sub-folders, files, or splits that `datasets` saved.
- Both are empty: data.test_fraction of the examples are held out, chosen by data.split_seed.

The examples have a fixed order: files that of their paths, rows their own. What a run sees depends on that order and on
the number of examples, so nothing may be added to the data of a run that is to go on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffjax.data import arrow, folders, tables
from diffjax.data.dataset import Dataset
from diffjax.data.parts import held_out
from diffjax.data.pictures import Part
from diffjax.errors import InputError
from diffjax.paths import local


def load_own(config: Any, split: str) -> Dataset:
    """The "train" or "test" part of data that lie in `config.dir`, of a kind in `OWN`.

    config.name: "folder", see folders.py; "npz", "npy" or "csv", see tables.py; "huggingface", see arrow.py.
    config.dir: the folder, or the file. Where a folder holds one file of the kind, the folder will do.
    config.shape: of an example. Images in files are cropped about their centre and resized to it.
    config.levels: of arrays and tables: how many values an element takes, 0 for real numbers.
    config.train_split, config.test_split: the parts' places in config.dir; or both "", or absent.
    config.test_fraction, config.split_seed: how many are held out otherwise, and which ones; 0.1 and 0 if absent.
    config.in_memory: of images in files: keep all pixels in memory (also if absent), or decode each image when it is
        asked for, as one does of a set of above 1 GiB in any case.
    config.num_train, config.num_test: of "folder", if not 0: take so many random crops instead, see `folders.crops`.

    Raises `InputError` if the data cannot be had, in one sentence that says what to change.
    """
    if not isinstance(given := config.get("dir"), str) or not given:
        raise InputError(f"data.dir={given!r} must be the directory or the file of the set {config.name!r}.")
    place = local(given, "data.dir")
    train, test = config.get("train_split", ""), config.get("test_split", "")
    if bool(train) != bool(test):
        raise InputError(
            f"data.train_split={train!r} and data.test_split={test!r}: name both parts, or set both to '' to hold out"
            " data.test_fraction of the examples."
        )
    if config.name == "folder" and config.get("num_train"):
        if train:
            raise InputError(
                "data.train_split and data.test_split must be '' where data.num_train asks for crops: each image is"
                " divided by itself."
            )
        return folders.crops(config, place, split)
    if train:
        mine = place / (train if split == "train" else test)
        if not mine.exists():
            raise InputError(
                f"data.{split}_split={mine.name!r} is not there in data.dir={given!r}: correct it, or set"
                " data.train_split and data.test_split to '' to hold out data.test_fraction of the examples."
            )
        return OWN[config.name](config, mine, place / train, lambda num: slice(None))

    def part(num: int) -> Any:
        parts = held_out(num, config.get("test_fraction", 0.1), config.get("split_seed", 0))
        return parts[("train", "test").index(split)]

    return OWN[config.name](config, place, place, part)


# (the section `data`, the place of this part, that of the training part, which of the examples to take) -> Dataset
OWN: dict[str, Callable[[Any, Path, Path, Part], Dataset]] = {
    "folder": folders.read,
    "npz": tables.read_npz,
    "npy": tables.read_npy,
    "csv": tables.read_csv,
    "huggingface": arrow.read,
}
