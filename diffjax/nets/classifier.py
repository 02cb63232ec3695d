"""A classifier of noisy images, p(y | x_t, t): the down half of the U-Net (Dhariwal & Nichol 2021, section 4).

    down   num_blocks residual blocks per resolution, then a stride-2 convolution
    top    block, attention, block
    head   one dense layer on all of swish(norm(h)); it starts at zero, so at the start all classes are equally likely

The blocks, and how time enters them, are those of `unet`. The head sees every position, because at high noise a class
is recognised as a template. A head on the mean over positions is worse by 0.1 to 0.2 nats on digits.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.nets.layers import FAN_AVG, ZERO, GroupNorm, sinusoid
from diffjax.nets.unet import Attention, Block


class Classifier(nn.Module):
    """Logits of the classes of noisy images. All images must have the size used at initialisation.

    Attributes:
      num_classes: number of classes, at least 2.
      channels: width at the first resolution, even and at least 4.
      multipliers: width of each resolution in units of `channels`; each next resolution has half the size, rounded up.
      num_blocks: residual blocks per resolution.
      dropout: rate before the second convolution of a block, used when a `dropout_key` is given.
      dtype: of the activations; the parameters, the statistics of the norms, the softmax and the output are float32.
    """

    num_classes: int
    channels: int = 32
    multipliers: Sequence[int] = (1, 2)
    num_blocks: int = 1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        time: Float[Array, " batch"],
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch num_classes"]:
        """The logits for a noisy image and its time.

        Args:
          x: images.
          time: the input of the sinusoid, 0 .. 999.
          dropout_key: one key, or one per example. None means no dropout (guidance, evaluation).

        Raises:
          InputError: if the number of classes or channels, or the shape of x or time, does not fit.
        """
        self._check(x, time)

        def dense(h: Array, size: int, name: str) -> Array:
            return nn.Dense(size, dtype=self.dtype, kernel_init=FAN_AVG, name=name)(h)

        temb = dense(sinusoid(time, self.channels), 4 * self.channels, "temb_dense0")
        temb = dense(nn.swish(temb), 4 * self.channels, "temb_dense1")

        def conv(h: Array, channels: int, name: str, stride: int = 1) -> Array:
            strides = (stride, stride)
            return nn.Conv(channels, (3, 3), strides, dtype=self.dtype, kernel_init=FAN_AVG, name=name)(h)

        def block(h: Array, channels: int, name: str) -> Array:
            return Block(channels, self.dropout, self.dtype, name=name)(h, temb, dropout_key)

        h = conv(x, self.channels, "conv_in")
        for level, multiplier in enumerate(self.multipliers):
            width = self.channels * multiplier
            if level > 0:
                h = conv(h, h.shape[-1], f"down_{level - 1}_downsample", stride=2)
            for index in range(self.num_blocks):
                h = block(h, width, f"down_{level}_block_{index}")
        h = block(h, width, "mid_block_1")
        h = Attention(self.dtype, name="mid_attn")(h)
        h = block(h, width, "mid_block_2")
        h = nn.swish(GroupNorm(self.dtype, name="norm_out")(h)).astype(jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=ZERO, name="head")(h.reshape(len(h), -1))

    def _check(self, x: Array, time: Array) -> None:
        if self.num_classes < 2:
            raise InputError(f"num_classes is {self.num_classes}; a classifier needs at least 2")
        if self.channels < 4 or self.channels % 2:
            raise InputError(f"channels is {self.channels}; the sinusoid of time needs an even number, at least 4")
        if not self.multipliers:
            raise InputError("multipliers is empty; give the width of at least one resolution")
        if x.ndim != 4:
            raise InputError(f"x has shape {x.shape}; give images as (batch, height, width, channels)")
        if time.shape != x.shape[:1]:
            raise InputError(f"time has shape {time.shape}; give one number per image, {x.shape[:1]}")
