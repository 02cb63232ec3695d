"""The Inception network of the Frechet inception distance (Heusel et al. 2017) and the inception score.

It is the TensorFlow graph of 2015-12-05 with 1008 classes (Szegedy et al. 2016, "Rethinking the Inception
Architecture"), with the names of its PyTorch port. pytorch-fid and torch-fidelity publish the port's weights as
*-inception-2015-12-05-6726825d.pth. No package contains them: download the file and read it with

    params = from_torch(read_tensors("pt_inception-2015-12-05-6726825d.pth"))

It differs from torchvision's ImageNet network in its weights and in two layers: average pools do not count the padding,
and the last block pools by maximum.

There are two conventions for resizing to 299 pixels and scaling to about [-1, 1]. A Frechet distance changes by up to 1
between them, and between these weights and others. So compare only numbers of the same convention and weights file:

    tensorflow    TensorFlow 1's resizing, then (x - 128) / 128       the original graph, and torch-fidelity
    pytorch       F.interpolate's, then 2 x / 255 - 1                 pytorch-fid

The inception score uses the logits without bias, `logits_unbiased`, as the original and torch-fidelity do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.errors import InputError
from diffjax.nets.frozen import Conv, FrozenNorm, Head, Outputs, colours, params_from
from diffjax.nets.resizing import resize
from diffjax.registry import choose

WEIGHTS = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or torch-fidelity's of the same date"
SCALINGS: dict[str, Callable[[Array], Array]] = {
    "tensorflow": lambda x: (x - 128) / 128,
    "pytorch": lambda x: 2 * x / 255 - 1,
}


class ConvNorm(nn.Module):
    """relu(norm(conv(x)))."""

    channels: int
    kernel: tuple[int, int]
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = Conv(self.channels, self.kernel, self.stride, self.padding, name="conv")(x)
        return nn.relu(FrozenNorm(name="bn")(h))


class InceptionV3(nn.Module):
    """Features of images, (batch, 2048), and the logits of 1008 classes.

    Attributes:
      resizing: "tensorflow" or "pytorch", for both the resizing and the scaling of values.
      size: pixels a side after the resizing, at least 75. Only 299 gives the features that others report.
    """

    resizing: str = "tensorflow"
    size: int = 299

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"]) -> Outputs:
        """A function of images of any size with values in [0, 255], in grey or three colours.

        Values are not rounded. Round them first if the result must equal that of image files.

        Raises:
          InputError: the shape of images does not fit, there is no such resizing, or the size is too small.
        """
        if self.size < 75:
            raise InputError(
                f"size is {self.size}; the last layer sees nothing of images of fewer than 75 pixels a side"
            )

        def conv(
            x: Array, name: str, channels: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: str = ""
        ) -> Array:
            sides = (kernel, kernel) if isinstance(kernel, int) else kernel
            padding = padding or ("SAME" if stride == 1 else "VALID")
            return ConvNorm(channels, sides, stride, padding, name=name)(x)

        scaled = choose("resizing", self.resizing, SCALINGS)
        h = scaled(resize(colours(images), self.size, self.resizing))
        h = conv(h, "Conv2d_1a_3x3", 32, 3, stride=2)
        h = conv(h, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        h = conv(h, "Conv2d_2b_3x3", 64, 3)
        h = half(h)
        h = conv(h, "Conv2d_3b_1x1", 80)
        h = conv(h, "Conv2d_4a_3x3", 192, 3, padding="VALID")
        h = half(h)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            h = block_a(under(name, conv), h, pooled)
        h = block_b(under("Mixed_6a", conv), h)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            h = block_c(under(name, conv), h, inner)
        h = block_d(under("Mixed_7a", conv), h)
        h = block_e(under("Mixed_7b", conv), h, average(h))
        h = block_e(under("Mixed_7c", conv), h, nn.max_pool(h, (3, 3), padding="SAME"))
        return Head(1008, name="fc")(h)


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of `InceptionV3`, from the PyTorch port's tensors by name.

    Raises:
      InputError: they are the weights of another network. The error names the first tensor that differs.
    """
    return params_from(tensors, InceptionV3(), WEIGHTS)


def under(block: str, conv: Callable[..., Array]) -> Callable[..., Array]:
    """`conv` with the block's name before the names of its layers."""
    return lambda x, name, *args, **options: conv(x, f"{block}.{name}", *args, **options)


def half(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def average(x: Array) -> Array:
    """The mean over the 3 x 3 neighbours, without the padding."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def block_a(conv: Callable[..., Array], x: Array, pooled: int) -> Array:
    five = conv(conv(x, "branch5x5_1", 48), "branch5x5_2", 64, 5)
    three = conv(conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    three = conv(three, "branch3x3dbl_3", 96, 3)
    return jnp.concatenate([conv(x, "branch1x1", 64), five, three, conv(average(x), "branch_pool", pooled)], axis=-1)


def block_b(conv: Callable[..., Array], x: Array) -> Array:
    double = conv(conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    double = conv(double, "branch3x3dbl_3", 96, 3, stride=2)
    return jnp.concatenate([conv(x, "branch3x3", 384, 3, stride=2), double, half(x)], axis=-1)


def block_c(conv: Callable[..., Array], x: Array, inner: int) -> Array:
    seven = conv(conv(x, "branch7x7_1", inner), "branch7x7_2", inner, (1, 7))
    seven = conv(seven, "branch7x7_3", 192, (7, 1))
    double = conv(conv(x, "branch7x7dbl_1", inner), "branch7x7dbl_2", inner, (7, 1))
    double = conv(conv(double, "branch7x7dbl_3", inner, (1, 7)), "branch7x7dbl_4", inner, (7, 1))
    double = conv(double, "branch7x7dbl_5", 192, (1, 7))
    return jnp.concatenate([conv(x, "branch1x1", 192), seven, double, conv(average(x), "branch_pool", 192)], axis=-1)


def block_d(conv: Callable[..., Array], x: Array) -> Array:
    three = conv(conv(x, "branch3x3_1", 192), "branch3x3_2", 320, 3, stride=2)
    seven = conv(conv(x, "branch7x7x3_1", 192), "branch7x7x3_2", 192, (1, 7))
    seven = conv(conv(seven, "branch7x7x3_3", 192, (7, 1)), "branch7x7x3_4", 192, 3, stride=2)
    return jnp.concatenate([three, seven, half(x)], axis=-1)


def block_e(conv: Callable[..., Array], x: Array, pooled: Array) -> Array:
    """Two branches end in a 1 x 3 and a 3 x 1 layer side by side, in place of one 3 x 3 layer."""
    three = conv(x, "branch3x3_1", 384)
    double = conv(conv(x, "branch3x3dbl_1", 448), "branch3x3dbl_2", 384, 3)
    parts = [
        conv(x, "branch1x1", 320),
        conv(three, "branch3x3_2a", 384, (1, 3)),
        conv(three, "branch3x3_2b", 384, (3, 1)),
        conv(double, "branch3x3dbl_3a", 384, (1, 3)),
        conv(double, "branch3x3dbl_3b", 384, (3, 1)),
        conv(pooled, "branch_pool", 192),
    ]
    return jnp.concatenate(parts, axis=-1)
