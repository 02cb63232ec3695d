"""A classifier of noisy images, p(y | x_t, t): the way down of the U-Net (Dhariwal & Nichol 2021, section 4).

    down   num_blocks residual blocks a resolution, then a stride-2 convolution
    top    block, attention, block
    head   one dense layer on all of swish(norm(h)); it starts at zero, so at the start all classes are equally likely

The blocks, and how time enters them, are those of `unet`. The head knows every position, because in much noise a class
is a template: with the mean over positions in its place digits lose 0.1 to 0.2 nats.
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
    """Logits of the classes of noisy images, all of the size of those it was initialised with.

    Attributes:
      num_classes: at least 2.
      channels: width at the first resolution, even and at least 4.
      multipliers: width of each resolution in units of `channels`; each next resolution has half the size, rounded up.
      num_blocks: residual blocks a resolution.
      dropout: rate before the second convolution of a block, where a `dropout_key` is given.
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
        """A function of a noisy image and the position of its noise level.

        Args:
          x: images.
          time: what enters the sinusoid; 0 .. 999.
          dropout_key: None does not drop out (guidance, evaluation); else one key, or one per example.

        Raises:
          InputError: the number of classes or channels, or the shape of x or time, does not fit.
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
            raise InputError(f"time has shape {time.shape}; give one number an image, {x.shape[:1]}")
