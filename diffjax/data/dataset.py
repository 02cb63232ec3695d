"""The type of every data set: a finite set of examples, read one whole batch at a time.

An example is a vector such as (20,) or an image (H, W, C). Its values are integers 0 .. levels - 1 as uint8, or real
numbers as float32 if `levels` is 0. Examples are gathered by batch because that is fast: one fancy index into a uint8
array reads about a million small images a second, a hundred times as many as a loop over examples.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer
from numpy.typing import ArrayLike

from diffjax.errors import InputError

AT_ONCE = 1024  # examples read at a time in a pass over a whole set
UNKNOWN = -1  # the label of an example whose class is not known


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A set of examples of one shape.

    name: what the configuration calls it.
    shape: the shape of one example: (H, W, C) for an image, (2,) for a point in the plane.
    levels: the number of values an element can take: 256 for 8-bit images, 17 for scikit-learn's digits, 2 for bits,
        and 0 for real values.
    size: the number of examples, also `len(dataset)`.
    gather: indices (n,) -> dict(image=(n, *shape), label=int32 (n,)). `image` is the example itself, whatever its
        shape: uint8, or float32 if levels is 0. A label is a class 0, 1, 2, ..., or -1 if the class is not known. A
        set without labels gives zeros. `pairs.with_source` adds the examples of another set.
    highest_label: an upper bound of the labels; None if it is not known without reading all labels.
    note: one line for the user, for example what was left out or changed. A run prints it at the start.

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
    """A Dataset over arrays in memory. Its values are checked once, here. Without labels, all labels are 0.

    name: the name of the set in error messages.
    examples: images (n, H, W, C) or vectors (n, d). The values are raw levels 0 .. levels - 1, as integers of any type.
        If levels is 0, they are real numbers, as floats of any type, and become float32.
    labels: classes, -1 if a class is not known.
    note: see `Dataset`.

    `data.split` divides it into a training and a test part.

    Raises `InputError` if the examples are not an array (n, ...) of integers (floats if levels is 0), if a value lies
    outside 0 .. levels - 1 (is not finite if levels is 0), if there are more or fewer labels than examples, or if a
    label is not a class (see `as_labels`).
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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, an error below
        examples = examples.astype(np.uint8 if levels else np.float32, copy=False)
    if not levels and not (finite := np.isfinite(examples)).all():
        raise InputError(f"Dataset {name!r} has {finite.size - finite.sum()} NaN or infinite values: remove them.")
    labels = as_labels(name, labels)

    def gather(indices):
        return {"image": examples[indices], "label": labels[indices]}

    highest = int(labels.max(initial=UNKNOWN))
    return Dataset(name, examples.shape[1:], levels, len(examples), gather, highest, note)


def as_labels(name: str, labels: ArrayLike) -> Int32[np.ndarray, " n"]:
    """Labels (n,) of any numeric type, as int32. `name` is the name of the set in error messages.

    Raises `InputError` if a label is not a whole number, is below -1 (-1 stands for "not known"), or does not fit
    int32.
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
    """The mean and the standard deviation over all elements of all examples. The set must have levels.

    Both are computed from counts of the levels in exact arithmetic, so every machine gets the same result.
    Raises `InputError` if the set has no levels, or if all elements are equal.
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
