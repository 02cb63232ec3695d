"""What a source of data gives: a finite set of examples that is read a whole batch at a time.

An example is a vector (20,) or an image (H, W, C), of integer values 0 .. levels - 1 as uint8 or, where `levels` is 0,
of real values as float32. A batch gather is the unit because it is what is fast: one fancy index over a uint8 array
reads about a million small images a second, a hundred times what a loop over examples does.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer
from numpy.typing import ArrayLike

from diffjax.errors import InputError

AT_ONCE = 1024  # examples, where a whole set is read and forgotten
UNKNOWN = -1  # the label of an example whose class is not known


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A set of examples of one shape.

    name: what the configuration calls it.
    shape: of one example: (H, W, C) of an image, (2,) of a point in the plane.
    levels: the number of values an element can take: 256 for 8-bit images, 17 for scikit-learn's digits, 2 for bits,
        and 0 for real values.
    size: the number of examples, also `len(dataset)`.
    gather: indices (n,) -> dict(image=(n, *shape), label=int32 (n,)). `image` is the example itself, whatever its
        shape: uint8, or float32 if levels is 0. A label is a class from 0 on, or -1 where it is not known. A set
        without labels gives zeros. `pairs.with_source` adds the examples of another set.
    highest_label: no label is above it; None where that is not known without reading all of them.
    note: what a person should know of it, in one line: what was left out or changed. A run says it when it begins.

    Raises `InputError` if the set is empty.
    """

    name: str
    shape: tuple[int, ...]
    levels: int
    size: int
    gather: Callable[[Integer[np.ndarray, " n"]], dict[str, np.ndarray]]
    highest_label: int | None = None
    note: str = ""

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"Dataset {self.name!r} has no examples: choose a split that is not empty.")

    def __len__(self) -> int:
        return self.size


def from_arrays(
    name: str,
    examples: Integer[np.ndarray, "n *shape"] | Bool[np.ndarray, "n *shape"] | Float[np.ndarray, "n *shape"],
    labels: Integer[np.ndarray, " n"] | None = None,
    levels: int = 256,
    note: str = "",
) -> Dataset:
    """A Dataset over arrays in memory, labelled zero if there are no labels; the values are checked here, once.

    name: what errors call it.
    examples: images (n, H, W, C) or vectors (n, d), raw levels 0 .. levels - 1 as integers of any type; or, if levels
        is 0, real numbers as floats of any type, which become float32.
    labels: classes, -1 where one is not known.
    note: see `Dataset`.

    `data.split` holds a part of it out.

    Raises `InputError` if the examples are not (n, ...) of integers (floats if levels is 0), have a value outside
    0 .. levels - 1 (that is not finite), or differ in number from the labels, or a label is no class (see `as_labels`).
    """
    examples = np.asarray(examples)
    if examples.dtype.kind not in ("biu" if levels else "f") or examples.ndim < 2:
        wanted = "uint8" if levels else "float32"
        raise InputError(
            f"Dataset {name!r} with levels={levels} needs {wanted} examples of shape (n, ...), not"
            f" {examples.dtype} {examples.shape}: give raw pixel values, which the model scales itself, as uint8, or"
            " continuous data as float32 with levels=0."
        )
    labels = np.zeros(len(examples), np.int32) if labels is None else np.asarray(labels)
    if labels.shape != examples.shape[:1]:
        raise InputError(
            f"Dataset {name!r} has {len(examples)} examples but labels of shape {labels.shape}: give one each."
        )
    for extreme in (int(examples.max()), int(examples.min())) if levels and examples.size else ():
        if not 0 <= extreme < levels:
            raise InputError(f"Dataset {name!r} has the value {extreme}, outside 0 .. {levels - 1}: fix its levels.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and said below
        examples = examples.astype(np.uint8 if levels else np.float32, copy=False)
    if not levels and not (finite := np.isfinite(examples)).all():
        raise InputError(f"Dataset {name!r} has {finite.size - finite.sum()} NaN or infinite values: remove them.")
    labels = as_labels(name, labels)

    def gather(indices):
        return {"image": examples[indices], "label": labels[indices]}

    highest = int(labels.max(initial=UNKNOWN))
    return Dataset(name, examples.shape[1:], levels, len(examples), gather, highest, note)


def as_labels(name: str, labels: ArrayLike) -> Int32[np.ndarray, " n"]:
    """The labels (n,) of the set `name`, of any type of number, as int32.

    Raises `InputError` if one is no whole number, is below -1, which stands for "not known", or does not fit int32.
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"Dataset {name!r} has labels of type {values.dtype}: give classes as whole numbers from 0 on."
        )
    wrong = (
        (values != np.floor(values)) | (values < UNKNOWN) | (values > np.iinfo(np.int32).max)
    )  # NaN is not its floor
    if wrong.any():
        raise InputError(
            f"Dataset {name!r} has the label {values[wrong][0]}: give classes as whole numbers from 0 on, and"
            f" {UNKNOWN} where the class is not known."
        )
    return values.astype(np.int32)


def mean_and_std(dataset: Dataset) -> tuple[float, float]:
    """The mean and the standard deviation of all elements of all examples of a set of levels.

    They come from counts of the levels in exact arithmetic, so every machine finds the same.
    Raises `InputError` if the set has no levels, or all elements are the same.
    """
    if not dataset.levels:
        raise InputError(f"Dataset {dataset.name!r} has real values, not levels: standardise them beforehand.")
    counts = np.zeros(dataset.levels, np.int64)
    for first in range(0, len(dataset), AT_ONCE):
        part = dataset.gather(np.arange(first, min(first + AT_ONCE, len(dataset))))["image"]
        counts += np.bincount(part.ravel(), minlength=dataset.levels)
    num, total, squares = (sum(int(n) * k**power for k, n in enumerate(counts)) for power in range(3))
    if num * squares == total**2:
        raise InputError(
            f"Dataset {dataset.name!r} has the value {total // num} everywhere: there is nothing to learn."
        )
    return total / num, math.sqrt((num * squares - total**2) / num**2)
