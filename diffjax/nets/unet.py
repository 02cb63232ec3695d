"""The U-Net of DDPM: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B.

    down:  num_blocks residual blocks per resolution, then a stride-2 convolution; every output is kept as a skip
    mid:   block, attention, block
    up:    num_blocks + 1 residual blocks per resolution, each on concat(h, skip), then 2x nearest neighbour and conv

    residual block   h = conv2(dropout(swish(norm2(conv1(swish(norm1(x))) + W swish(temb)))));  x + h
    attention        softmax(q k' / sqrt(C)) v over all positions, one head;                    x + W h
    time             temb = W1 swish(W0 [sin(time w), cos(time w)]),  w_i = 10000^(-i / (half - 1))

`Conventions` names the points in which other published networks differ from it. See diffjax.nets.diffusers.

The last layer of every residual branch and of the network starts at zero. So at the start the network is the constant 0
and each block is the identity. Layers have the names of the original code, so that `published` can map its checkpoints.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.nets.layers import FAN_AVG, ZERO, Dropout, GroupNorm, Upsample, attend, check_condition, sinusoid


class Conventions(NamedTuple):
    """The points in which the U-Nets of other code differ. The defaults are DDPM's.

    groups: of every group norm; 0 means `layers.num_groups` of its channels.
    epsilon: of the group norms.
    heads: of every attention.
    head_width: channels of a head; it determines the number of heads. 0 means that `heads` does.
    symmetric: if true, a stride-2 convolution pads with zeros on all sides; otherwise only below and to the right, as
        TensorFlow's "SAME" does for even sizes.
    last_frequency: if true, w_i = 10000^(-i / (half - 1)); otherwise 10000^(-i / half).
    scale_shift: if true, a block computes swish(norm2(h) (1 + a) + b) with (a, b) = W swish(temb); otherwise it adds
        W swish(temb) to h before the norm (Nichol & Dhariwal 2021, their code).
    """

    groups: int = 0
    epsilon: float = 1e-6
    heads: int = 1
    head_width: int = 0
    symmetric: bool = False
    last_frequency: bool = True
    scale_shift: bool = False


DDPM = Conventions()


class Block(nn.Module):
    """Residual block: (batch, H, W, C), (batch, T) -> (batch, H, W, channels)."""

    channels: int
    dropout: float
    dtype: DTypeLike
    conventions: Conventions = DDPM

    @nn.compact
    def __call__(self, x: Array, temb: Array, dropout_key: PRNGKeyArray | None) -> Array:
        groups, epsilon, scale_shift = self.conventions.groups, self.conventions.epsilon, self.conventions.scale_shift
        units = 2 * self.channels if scale_shift else self.channels
        h = nn.swish(GroupNorm(self.dtype, groups, epsilon, name="norm1")(x))
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=FAN_AVG, name="conv1")(h)
        t = nn.Dense(units, dtype=self.dtype, kernel_init=FAN_AVG, name="temb_proj")(nn.swish(temb))[:, None, None, :]
        if not scale_shift:
            h = h + t
        h = GroupNorm(self.dtype, groups, epsilon, name="norm2")(h)
        if scale_shift:
            scale, shift = jnp.split(t, 2, axis=-1)
            h = h * (1 + scale) + shift
        h = nn.swish(h)
        h = Dropout(self.dropout, name="dropout")(h, dropout_key)
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=ZERO, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, kernel_init=FAN_AVG, name="nin_shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over the positions of an image: (batch, H, W, C) -> the same. Each head has adjacent channels."""

    dtype: DTypeLike
    conventions: Conventions = DDPM

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        given = self.conventions
        heads = channels // given.head_width if given.head_width else given.heads
        if channels % max(heads, 1) or (given.head_width and heads * given.head_width != channels):
            raise InputError(f"heads={given.heads}, head_width={given.head_width} do not divide {channels} channels")
        norm = GroupNorm(self.dtype, given.groups, given.epsilon, name="norm")
        h = norm(x).reshape(batch, height * width, channels)

        def projected(name: str) -> Array:
            y = nn.Dense(channels, dtype=self.dtype, kernel_init=FAN_AVG, name=name)(h)
            return y if heads == 1 else y.reshape(batch, height * width, heads, -1).swapaxes(1, 2)

        h = attend(projected("q"), projected("k"), projected("v"))
        h = h if heads == 1 else h.swapaxes(1, 2)
        h = h.reshape(batch, height * width, channels)
        h = nn.Dense(channels, dtype=self.dtype, kernel_init=ZERO, name="proj_out")(h)
        return x + h.reshape(x.shape)


class UNet(nn.Module):
    """The network of the paper. The defaults are its CIFAR-10 setting without dropout (0.1): 35,746,307 parameters.

    Attributes:
      channels: width at the first resolution, even and at least 4.
      multipliers: width of each resolution in units of `channels`; each next resolution has half the size.
      num_blocks: residual blocks per resolution on the way down (one more on the way up).
      attention: heights of the feature maps that have an attention after each block; 16 means 16x16.
      out_channels: channels of the output.
      dropout: rate before the second convolution of a block, used when a `dropout_key` is given.
      num_classes: None, or the number of classes to condition on.
      dtype: of the activations; the parameters, the statistics of the norms, the softmax and the output are float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
      conventions: of the code whose weights are used.
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    num_blocks: int = 2
    attention: Sequence[int] = (16,)
    out_channels: int = 3
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    conventions: Conventions = DDPM

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        time: Float[Array, " batch"],
        label: Int[Array, " batch"] | None = None,
        dropout_key: PRNGKeyArray | None = None,
        span: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """The output for a noisy image, its time and, optionally, its class.

        Args:
          x: images.
          time: the input of the sinusoid, the paper's 0 .. 999.
          label: class 0 .. num_classes - 1; `num_classes`, or None for the whole batch, stands for "not given". So one
            network gives both predictions of classifier-free guidance.
          dropout_key: one key, or one per example. None means no dropout (sampling, evaluation).
          span: for a network of two times, `time` minus the other time. Its embedding is added to that of `time`. A
            network that is initialised without a span has no parameters for it.

        Raises:
          InputError: if sizes, attention resolutions, time or label do not fit.
        """
        self._check(x, time, label)
        size = 4 * self.channels
        block_class = nn.remat(Block) if self.remat else Block
        attention_class = nn.remat(Attention) if self.remat else Attention

        def embedded(time: Array, name: str) -> Array:
            h = sinusoid(time, self.channels, self.conventions.last_frequency)
            h = nn.Dense(size, dtype=self.dtype, kernel_init=FAN_AVG, name=f"{name}0")(h)
            return nn.Dense(size, dtype=self.dtype, kernel_init=FAN_AVG, name=f"{name}1")(nn.swish(h))

        temb = embedded(time, "temb_dense")
        if span is not None:
            temb = temb + embedded(span, "span_dense")
        if self.num_classes is not None:
            label = jnp.full(time.shape, self.num_classes) if label is None else label
            temb = temb + nn.Embed(self.num_classes + 1, size, dtype=self.dtype, name="label_embedding")(label)

        def conv(h: Array, channels: int, name: str, stride: int = 1) -> Array:
            strides, padding = (stride, stride), 1 if self.conventions.symmetric else "SAME"
            return nn.Conv(channels, (3, 3), strides, padding, dtype=self.dtype, kernel_init=FAN_AVG, name=name)(h)

        def block(h: Array, channels: int, name: str) -> Array:
            layer = block_class(channels, self.dropout, self.dtype, self.conventions, name=name)
            return layer(h, temb, dropout_key)

        def attention(h: Array, name: str) -> Array:
            return attention_class(self.dtype, self.conventions, name=name)(h)

        def both(h: Array, level: int, name: str, index: int) -> Array:
            h = block(h, self.channels * self.multipliers[level], f"{name}_block_{index}")
            return attention(h, f"{name}_attn_{index}") if h.shape[1] in self.attention else h

        last = len(self.multipliers) - 1
        skips = [conv(x, self.channels, "conv_in")]
        for level in range(last + 1):
            for index in range(self.num_blocks):
                skips.append(both(skips[-1], level, f"down_{level}", index))
            if level < last:
                skips.append(conv(skips[-1], skips[-1].shape[-1], f"down_{level}_downsample", stride=2))

        width = skips[-1].shape[-1]
        h = block(attention(block(skips[-1], width, "mid_block_1"), "mid_attn"), width, "mid_block_2")

        for level in reversed(range(last + 1)):
            for index in range(self.num_blocks + 1):
                h = both(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}", index)
            if level > 0:
                h = Upsample(self.dtype, name=f"up_{level}_upsample")(h)

        given = self.conventions
        h = nn.swish(GroupNorm(self.dtype, given.groups, given.epsilon, name="norm_out")(h))
        h = nn.Conv(self.out_channels, (3, 3), dtype=self.dtype, kernel_init=ZERO, name="conv_out")(h)
        return h.astype(jnp.float32)

    def _check(self, x: Array, time: Array, label: Array | None) -> None:
        levels = len(self.multipliers)
        factor = 2 ** (levels - 1)
        if self.channels < 4 or self.channels % 2:
            raise InputError(f"channels is {self.channels}; the sinusoid of time needs an even number, at least 4")
        if x.ndim != 4:
            raise InputError(f"x has shape {x.shape}; give images as (batch, height, width, channels)")
        height, width = x.shape[1:3]
        if height % factor or width % factor:
            raise InputError(
                f"an image of {height}x{width} cannot be halved {levels - 1} times; pad it to multiples of {factor} "
                f"or give fewer than {levels} multipliers"
            )
        resolutions = [height >> level for level in range(levels)]
        if missing := sorted(set(self.attention) - set(resolutions)):
            raise InputError(
                f"attention at {missing}, but an image of height {height} has feature maps of height {resolutions}; "
                "choose among these"
            )
        check_condition(x, time, label, self.num_classes)
