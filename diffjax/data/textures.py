"""Random crops of a few large images. Training and test crops have no pixel in common.

Training crops come from the rows 0 .. ⌊3H/4⌋ - 1 of an image of height H, test crops from the other rows. Each crop
first picks an image uniformly, then a place in that part of the image uniformly. So crops overlap, and a crop may come
twice.

gravel, grass and brick are photographs of 512 x 512 in scikit-image's wheel (CC0, from cc0textures.com). They replace
the bark of Sohl-Dickstein et al. (2015), because those images (Lazebnik et al. 2005) come without a licence.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from diffjax.errors import InputError
from diffjax.extras import needs_run

PHOTOGRAPHS = ("gravel", "grass", "brick")


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
