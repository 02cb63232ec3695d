"""What a source of data gives: a finite set of discrete-valued images that is read a whole batch at a time.

A batch gather is the unit because it is what is fast: one fancy index over a uint8 array reads about a million small
images a second, a hundred times what a loop over examples does.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Integer, UInt8

from diffjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A set of images with integer values 0 .. levels - 1.

    name: what the configuration calls it.
    shape: (H, W, C) of one image.
    levels: the number of values a pixel can take: 256 for 8-bit images, 17 for scikit-learn's digits.
    size: the number of examples, also `len(dataset)`.
    gather: indices (n,) -> dict(image=uint8 (n, H, W, C), label=int32 (n,)). A set without labels gives zeros.

    Raises `InputError` if the set is empty.
    """

    name: str
    shape: tuple[int, int, int]
    levels: int
    size: int
    gather: Callable[[Integer[np.ndarray, " n"]], dict[str, np.ndarray]]

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"Dataset {self.name!r} has no examples: choose a split that is not empty.")

    def __len__(self) -> int:
        return self.size


def from_arrays(
    name: str, images: UInt8[np.ndarray, "n h w c"], labels: Integer[np.ndarray, " n"], levels: int = 256
) -> Dataset:
    """A Dataset over arrays in memory; the values are checked here, once.

    Raises `InputError` if images are not uint8 (n, H, W, C), exceed levels - 1, or differ in number from the labels.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            f"Dataset {name!r} needs uint8 images of shape (n, H, W, C), not {images.dtype} {images.shape}:"
            " give the raw pixel values, which the model scales itself."
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"Dataset {name!r} has {len(images)} images but labels of shape {labels.shape}: give one each."
        )
    if images.size and (highest := int(images.max())) >= levels:
        raise InputError(f"Dataset {name!r} has the pixel value {highest}, outside 0 .. {levels - 1}: fix its levels.")
    labels = labels.astype(np.int32)

    def gather(indices):
        return {"image": images[indices], "label": labels[indices]}

    return Dataset(name, images.shape[1:], levels, len(images), gather)
