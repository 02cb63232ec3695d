"""Random crops of a few large images, in two parts without a common pixel.

An image of height H gives its rows 0 .. ⌊3H/4⌋ - 1 to the training crops and the rest to the test crops. A crop takes
one of the images with equal probability, then one of the crop's places in that image's part with equal probability, so
crops overlap, and the same may come twice.

gravel, grass and brick are photographs of 512 x 512 in scikit-image's wheel (CC0, from cc0textures.com). They stand in
for the bark of Sohl-Dickstein et al. (2015): those images, of Lazebnik et al. (2005), come without a licence.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from diffjax.data import image_files
from diffjax.errors import InputError
from diffjax.extras import needs_run

if TYPE_CHECKING:
    from PIL import Image

PHOTOGRAPHS = ("gravel", "grass", "brick")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")


def crops(
    rng: np.random.Generator,
    images: Sequence[UInt8[np.ndarray, "_ _ c"]],
    size: tuple[int, int],
    num: int,
    split: str,
) -> UInt8[np.ndarray, "num height width c"]:
    """Crops of `size` (height, width) from the "train" or "test" parts of the images.

    Raises `InputError` if a part is smaller than a crop.
    """
    parts = []
    for image in images:
        cut = 3 * len(image) // 4
        part = image[:cut] if split == "train" else image[cut:]
        if part.shape[0] < size[0] or part.shape[1] < size[1]:
            raise InputError(
                f"A crop of {size[0]} x {size[1]} does not fit into the {split} part, {part.shape[0]} x {part.shape[1]}"
                f" pixels, of an image of {image.shape[0]} x {image.shape[1]} (its upper 3/4 is for training, the rest"
                " for testing): choose a smaller data.shape, or larger images."
            )
        parts.append(part)
    which = rng.integers(0, len(parts), num)
    result = np.empty((num, *size, images[0].shape[2]), np.uint8)
    for i, part in enumerate(parts):
        windows = np.lib.stride_tricks.sliding_window_view(part, size, axis=(0, 1))  # (rows, columns, c, *size)
        (mine,) = np.nonzero(which == i)
        rows, columns = (rng.integers(0, places, len(mine)) for places in windows.shape[:2])
        result[mine] = np.moveaxis(windows[rows, columns], 1, -1)
    return result


def photograph(name: str) -> UInt8[np.ndarray, "512 512 1"]:
    """One of `PHOTOGRAPHS`, from scikit-image's wheel: no download."""
    with needs_run():
        from skimage import data  # half a second, for these sets only

    return getattr(data, name)()[..., None]


def folder(directory: Path, channels: int) -> list[UInt8[np.ndarray, "_ _ channels"]]:
    """Every image file in a directory, by name: grey if channels is 1, colour if it is 3, turned as a viewer shows it.

    Raises `InputError` if there is none, or if one cannot be had as 8-bit pixels without loss, see image_files.py.
    """
    paths = sorted(p for p in directory.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        missing = "has no image file" if directory.is_dir() else "is no directory"
        raise InputError(f"data.dir={str(directory)!r} {missing}: name a directory of {', '.join(SUFFIXES)} files.")
    with needs_run():
        from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [_pixels(image_files.read(path, str(path), channels, upright=True)) for path in paths]


def _pixels(image: "Image.Image") -> UInt8[np.ndarray, "_ _ channels"]:
    return np.asarray(image).reshape(image.height, image.width, -1)
