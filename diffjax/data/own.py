"""The user's own data: a folder of images, arrays in a file, a table of numbers, a folder of Hugging Face's `datasets`.

All kinds are divided into a training and a test part in one of two ways.

- data.train_split and data.test_split name two places in data.dir: sub-folders, files, or splits that `datasets` saved.
- If both are empty, data.test_fraction of the examples are held out. data.split_seed chooses which ones.

The examples have a fixed order: files are sorted by path, rows keep their order. The batches of a run depend on this
order and on the number of examples. So a run refuses to resume when the number has changed.
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
    """The "train" or "test" part of the data in `config.dir`, of a kind in `OWN`.

    config.name: "folder", see folders.py; "npz", "npy" or "csv", see tables.py; "huggingface", see arrow.py.
    config.dir: the folder or the file. A folder with exactly one file of the kind stands for that file.
    config.shape: the shape of an example. Images in files are centre-cropped and resized to it.
    config.levels: for arrays and tables: how many values an element takes, 0 for real numbers.
    config.train_split, config.test_split: the places of the two parts in config.dir; or both "", or absent.
    config.test_fraction, config.split_seed: used if the splits are empty: the fraction to hold out (default 0.1), and
        the seed that chooses the examples (default 0).
    config.in_memory: for images in files: keep all pixels in memory (the default), or decode each image on demand. A
        set of more than 1 GiB is always decoded on demand.
    config.num_train, config.num_test: for "folder", if not 0: take that many random crops instead, see `folders.crops`.

    Raises `InputError` if the data cannot be loaded, in one sentence that says what to change.
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


# (the section `data`, the place of this part, the place of the training part, which examples to take) -> Dataset
OWN: dict[str, Callable[[Any, Path, Path, Part], Dataset]] = {
    "folder": folders.read,
    "npz": tables.read_npz,
    "npy": tables.read_npy,
    "csv": tables.read_csv,
    "huggingface": arrow.read,
}
