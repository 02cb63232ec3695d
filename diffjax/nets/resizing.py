"""Bilinear resizing of images in the two conventions of published networks, as one matrix product per axis.

Pixel i of the output lies between two pixels of the input, around the position

    tensorflow    p = i · in / out                         (TensorFlow 1, align_corners=False: the corners coincide)
    pytorch       p = max((i + ½) · in / out - ½, 0)       (F.interpolate, align_corners=False: the centres coincide)

    out[i] = (1 - w) x[⌊p⌋] + w x[min(⌊p⌋ + 1, in - 1)],   w = p - ⌊p⌋

When an image becomes smaller, both conventions ignore the pixels in between (no antialias).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float

from diffjax.errors import InputError
from diffjax.registry import choose

POSITIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "tensorflow": lambda i, scale: i * scale,
    "pytorch": lambda i, scale: np.maximum((i + 0.5) * scale - 0.5, 0.0),
}


def matrix(size_in: int, size_out: int, convention: str) -> Float[np.ndarray, "size_out size_in"]:
    """The matrix that resizes a row of pixels.

    Raises:
      InputError: if there is no such convention.
    """
    position = choose("resizing", convention, POSITIONS)(np.arange(size_out), size_in / size_out)
    low = np.floor(position).astype(int)
    weight = position - low
    rows = np.eye(size_in)
    return (rows[low].T * (1 - weight) + rows[np.minimum(low + 1, size_in - 1)].T * weight).T.astype(np.float32)


def resize(
    images: Float[Array, "batch height width channels"], size: int, convention: str
) -> Float[Array, "batch size size channels"]:
    """Square images of `size` pixels a side, in the units of `images`. Images that are not square are distorted.

    Args:
      images: of any height and width.
      size: height and width of the output.
      convention: "tensorflow" or "pytorch".

    Raises:
      InputError: if images do not have 4 axes, or if there is no such convention.
    """
    if images.ndim != 4:
        raise InputError(f"images has shape {images.shape}; give images as (batch, height, width, channels)")
    down, across = (matrix(length, size, convention) for length in images.shape[1:3])
    # Full precision: the lower default of accelerators would round the pixels themselves.
    tall = jnp.einsum("ih,bhwc->biwc", down, images, precision=Precision.HIGHEST)
    return jnp.einsum("jw,biwc->bijc", across, tall, precision=Precision.HIGHEST)
