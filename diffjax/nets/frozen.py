"""What published networks of images share: layers with fixed training statistics, and the reader of their weights.

    FrozenNorm    (x - running_mean) / sqrt(running_var + epsilon) · weight + bias

Modules and parameters have PyTorch's names, so a parameter's path is its name in the file. For example, "running_mean"
of "bn" of "Mixed_5b.branch1x1" is Mixed_5b.branch1x1.bn.running_mean. Only the axes of weights differ:

    theirs    (out, in, height, width)    (out, in)
    ours      (height, width, in, out)    (in, out)

Everything is float32. Convolutions and products have jax's default precision: accelerators round the factors, as
PyTorch does on GPUs. `with jax.default_matmul_precision("float32"):` around the call avoids that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float

from diffjax.errors import InputError
from diffjax.nets.renaming import channels_last

ZERO, ONE = nn.initializers.zeros_init(), nn.initializers.ones_init()
LECUN = nn.initializers.lecun_normal()


class Outputs(NamedTuple):
    """Outputs of a network of images: features, which sample metrics compare, and logits of the classes."""

    features: Float[Array, "batch num_features"]
    logits: Float[Array, "batch num_classes"]
    logits_unbiased: Float[Array, "batch num_classes"]  # without the bias of the last layer


class Conv(nn.Module):
    """A convolution without bias. Its padding is "VALID", or TensorFlow's "SAME"."""

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("weight", LECUN, (*self.kernel, x.shape[-1], self.channels))
        strides = (self.stride, self.stride)
        return lax.conv_general_dilated(x, weight, strides, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class FrozenNorm(nn.Module):
    """Batch normalisation with the mean and the variance of the training images (Ioffe & Szegedy 2015)."""

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        weight, bias = self.param("weight", ONE, shape), self.param("bias", ZERO, shape)
        mean, variance = self.param("running_mean", ZERO, shape), self.param("running_var", ONE, shape)
        scale = weight * lax.rsqrt(variance + self.epsilon)
        return x * scale + (bias - mean * scale)


class Head(nn.Module):
    """The mean over positions as features, and one dense layer from them to the logits."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width num_features"]) -> Outputs:
        features = x.mean((1, 2))
        weight = self.param("weight", LECUN, (x.shape[-1], self.num_classes))
        bias = self.param("bias", ZERO, (self.num_classes,))
        unbiased = features @ weight
        return Outputs(features, unbiased + bias, unbiased)


def colours(images: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width 3"]:
    """The images as float32 with three channels. Grey images are repeated in three equal channels.

    Raises:
      InputError: unless images have 4 axes and 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(f"images has shape {images.shape}; give (batch, height, width, 1 or 3) of values in [0, 255]")
    return jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))


def params_from(tensors: Mapping[str, np.ndarray], net: nn.Module, weights: str) -> dict[str, Any]:
    """The tensors of a file as parameters of `net`, a network of images.

    Args:
      tensors: arrays by PyTorch's names. Counts of batches (num_batches_tracked) and PyTorch's auxiliary classifier
        (AuxLogits) are ignored.
      weights: where to find the right weights, for error messages.

    Raises:
      InputError: a tensor is missing, of another shape or left over. The error names the first one.
    """
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    ours = {".".join(path[1:]): (path, leaf.shape) for path, leaf in flatten_dict(like).items()}
    other = f"the file holds the weights of another network than {type(net).__name__}, which needs {weights}"
    params = {}
    for name, (path, shape) in ours.items():
        if name not in tensors:
            raise InputError(f"tensors has no {name}: {other}")
        params[path] = channels_last(np.asarray(tensors[name]))
        if params[path].shape != shape:
            raise InputError(f"{name} has shape {tensors[name].shape}, which does not fit: {other}")
    for name in tensors:
        if name not in ours and not name.endswith(".num_batches_tracked") and not name.startswith("AuxLogits."):
            raise InputError(f"tensors has {name} too: {other}")
    return unflatten_dict({path: jnp.asarray(value, jnp.float32) for path, value in params.items()})
