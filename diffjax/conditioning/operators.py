"""Linear operators A, as functions of one example, for `linear_operator` and every other method here.

    mask        the known entries                            in-painting
    blur        the convolution with a kernel                deblurring
    downsample  the mean of each block of pixels             super-resolution
    project     inner products with random directions        compressed sensing
    grey        a weighted sum of the channels of a pixel    colourisation

Images are (height, width, channels). Any other linear function of arrays works, too.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, PRNGKeyArray

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.linear_algebra import einsum, matmul

Operator = Callable[[Array], Array]  # x (*event) -> A x (*measurement)


def mask(known: Bool[ArrayLike, " *event"]) -> Operator:
    """x[known], a vector of the entries where the mask is True. The mask must be concrete.

    Raises:
        InputError: if the mask is not boolean, or True nowhere.
    """
    known = np.asarray(known)
    if known.dtype != bool or not known.any():
        raise InputError(f"known must be boolean, and True somewhere, not {known.dtype} with sum {known.sum()}")
    where = np.flatnonzero(known)
    return lambda x: _of_shape(x, known.shape).reshape(-1)[where]


def blur(kernel: Float[ArrayLike, "rows columns"], edge: Literal["circular", "zero"] = "circular") -> Operator:
    """The convolution of every channel with a kernel of odd sides. The result has the size of the image.

    Args:
        edge: what lies outside of the image: its opposite side ("circular"), or 0 ("zero").

    Raises:
        InputError: if a side of the kernel is even, if edge is unknown or, at the call, if x is not (H, W, C).
    """
    kernel = as_float(kernel)
    if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
        raise InputError(f"kernel must have two odd sides, so that it has a middle, not shape {kernel.shape}")
    if edge not in ("circular", "zero"):
        raise InputError(f"edge must be 'circular' or 'zero', not {edge!r}")
    rows, columns = (side // 2 for side in kernel.shape)

    def apply(x: Array) -> Array:
        x = _image(x)
        padding = ((rows, rows), (columns, columns), (0, 0))
        x = jnp.pad(x, padding, mode="wrap" if edge == "circular" else "constant")
        filters = jnp.asarray(kernel, x.dtype)[::-1, ::-1, None, None]  # XLA's convolution does not flip its kernel
        channels_first = jnp.moveaxis(x, -1, 0)[..., None]
        blurred = jax.lax.conv_general_dilated(
            channels_first, filters, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        return jnp.moveaxis(blurred[..., 0], 0, -1)

    return apply


def downsample(factor: int) -> Operator:
    """The means of blocks of factor x factor pixels: (H, W, C) -> (H/factor, W/factor, C).

    Raises:
        InputError: at the call, if x is no image (H, W, C), or the factor does not divide H and W.
    """

    def apply(x: Array) -> Array:
        height, width, channels = _image(x).shape
        if factor < 1 or height % factor or width % factor:
            raise InputError(f"factor {factor} must divide the sides of the image, {height} and {width}")
        blocks = x.reshape(height // factor, factor, width // factor, factor, channels)
        return as_float(blocks).mean((1, 3))

    return apply


def project(key: PRNGKeyArray, shape: tuple[int, ...], num: int) -> Operator:
    """Inner products of an event of this shape with `num` random directions N(0, I/D), of about unit length.

    Raises:
        InputError: if num is not positive or, at the call, x has another shape.
    """
    if num < 1:
        raise InputError(f"the number of projections must be positive, not {num}")
    size = int(np.prod(shape))
    directions = jax.random.normal(key, (num, size)) / np.sqrt(size).astype(np.float32)
    return lambda x: matmul(jnp.asarray(directions, as_float(x).dtype), as_float(_of_shape(x, shape)).reshape(-1))


def grey(weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> Operator:
    """Σ_c weights_c x_c of every pixel: (H, W, C) -> (H, W, 1). `colourisation` does the same for images of any size.

    Raises:
        InputError: at the call, if x has another number of channels than there are weights.
    """

    def apply(x: Array) -> Array:
        x = as_float(x)
        if x.shape[-1:] != (len(weights),):
            raise InputError(f"x has shape {x.shape}, but there are {len(weights)} weights: give one for each channel")
        return einsum("...c,c->...", x, jnp.asarray(weights, x.dtype))[..., None]

    return apply


def _image(x: Array) -> Array:
    if jnp.ndim(x) != 3:
        raise InputError(f"an image is (height, width, channels), not of shape {jnp.shape(x)}")
    return as_float(x)


def _of_shape(x: Array, shape: tuple[int, ...]) -> Array:
    if jnp.shape(x) != tuple(shape):
        raise InputError(f"the operator takes events of shape {tuple(shape)}, not {jnp.shape(x)}")
    return x
