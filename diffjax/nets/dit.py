"""The diffusion transformer: Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023, adaLN-Zero.

    tokens     h = W x + b + position,   position = [sin(p w), cos(p w)] for each axis,  w_i = 10000^(-i / half)
    condition  c = W1 swish(W0 [sin(time w), cos(time w)]) + label's row,                256 numbers in the brackets
    block      shift, scale, gate, shift', scale', gate' = W swish(c)
               h = h + gate  attention(norm(h) (1 + scale) + shift)
               h = h + gate' MLP(norm(h) (1 + scale') + shift')
    output     shift, scale = W swish(c);   V (norm(h) (1 + scale) + shift) + d

norm is (h - mean)/sqrt(var + 1e-6) over the features of a token. The W of shift, scale and gate and the V of the output
start at zero, so at the start every block is the identity and the network is the constant 0. A token of an image is a
patch of p x p pixels, and its position has two axes. Layers and initialisation are those of the published code. Only
the order of the pixels in a patch and of sine and cosine of the time differ.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.nets.layers import FAN_AVG, ZERO, Dropout, attend, check_condition, sinusoid

NORMAL = nn.initializers.normal(0.02)
FREQUENCIES = 256  # sines and cosines of the time


class Block(nn.Module):
    """Attention and an MLP, both modulated: (batch, length, width), (batch, width) -> (batch, length, width)."""

    heads: int
    hidden: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, c: Array, dropout_key: PRNGKeyArray | None) -> Array:
        batch, length, width = x.shape
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=FAN_AVG)
        modulation = nn.Dense(6 * width, dtype=self.dtype, kernel_init=ZERO, name="modulation")(nn.swish(c))
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation[:, None], 6, axis=-1)

        h = dense(3 * width, name="qkv")(modulate(x, shift1, scale1)).reshape(batch, length, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(h, (2, 3), (0, 2))  # (batch, heads, length, features of a head)
        h = dense(width, name="proj_out")(attend(q, k, v).swapaxes(1, 2).reshape(x.shape))
        x = x + gate1 * Dropout(self.dropout, name="dropout1")(h, dropout_key)

        h = nn.gelu(dense(self.hidden, name="mlp_dense0")(modulate(x, shift2, scale2)))
        h = dense(width, name="mlp_dense1")(h)
        return x + gate2 * Dropout(self.dropout, name="dropout2")(h, dropout_key)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """norm(x) (1 + scale) + shift, in x's type; it is computed in float32."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    y = y * lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-6)
    return (y * (1.0 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)).astype(x.dtype)


class TokenDiT(nn.Module):
    """The transformer of tokens; the defaults are the paper's size S.

    Attributes:
      out_features: features of each output token.
      width: features of a token inside. Each axis of the position has an equal share of them for sines and cosines.
      depth: number of blocks.
      heads: of the attention; the width must be a multiple of it.
      mlp_ratio: hidden units of an MLP in units of `width`.
      dropout: rate after each attention and each MLP, used when a `dropout_key` is given; the paper has none.
      num_classes: None, or the number of classes to condition on.
      dtype: of the activations; the parameters, the statistics of the norms, the softmax and the output are float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
    """

    out_features: int
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length features"],
        time: Float[Array, " batch"],
        label: Int[Array, " batch"] | None = None,
        dropout_key: PRNGKeyArray | None = None,
        positions: Array | None = None,
        span: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch length out_features"]:
        """The output for noisy tokens, their time and, optionally, their class.

        Args:
          x: tokens.
          time: the input of the sinusoid, 0 .. 999.
          label: class 0 .. num_classes - 1; `num_classes`, or None for the whole batch, stands for "not given".
          dropout_key: one key, or one per example. None means no dropout (sampling, evaluation).
          positions: (length, axes), the positions of the tokens; by default 0, 1, .. length - 1 on one axis.
          span: see `unet.UNet`.

        Raises:
          InputError: if sizes, positions, time or label do not fit.
        """
        self._check(x, time, label, positions)
        positions = jnp.arange(x.shape[1])[:, None] if positions is None else positions
        dense = partial(nn.Dense, dtype=self.dtype)
        block_class = nn.remat(Block) if self.remat else Block

        def embedded(time: Array, name: str) -> Array:
            h = dense(self.width, kernel_init=NORMAL, name=f"{name}0")(sinusoid(time, FREQUENCIES, last=False))
            return dense(self.width, kernel_init=NORMAL, name=f"{name}1")(nn.swish(h))

        c = embedded(time, "time_dense")
        if span is not None:
            c = c + embedded(span, "span_dense")
        if self.num_classes is not None:
            label = jnp.full(time.shape, self.num_classes) if label is None else label
            rows = nn.Embed(self.num_classes + 1, self.width, self.dtype, embedding_init=NORMAL, name="label_embedding")
            c = c + rows(label)

        h = dense(self.width, kernel_init=FAN_AVG, name="tokens_in")(x)
        h = h + encoding(positions, self.width).astype(h.dtype)
        for index in range(self.depth):
            hidden = int(self.mlp_ratio * self.width)
            h = block_class(self.heads, hidden, self.dropout, self.dtype, name=f"block_{index}")(h, c, dropout_key)
        modulation = dense(2 * self.width, kernel_init=ZERO, name="modulation_out")(nn.swish(c))
        shift, scale = jnp.split(modulation[:, None], 2, axis=-1)
        h = dense(self.out_features, kernel_init=ZERO, name="tokens_out")(modulate(h, shift, scale))
        return h.astype(jnp.float32)

    def _check(self, x: Array, time: Array, label: Array | None, positions: Array | None) -> None:
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}; give at least one block")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise InputError(f"width {self.width} cannot be divided by heads {self.heads}; choose a multiple of heads")
        if self.mlp_ratio * self.width < 1:
            raise InputError(f"mlp_ratio is {self.mlp_ratio}; give at least 1/{self.width}, for one hidden unit")
        if x.ndim != 3:
            raise InputError(f"x has shape {x.shape}; give tokens as (batch, length, features)")
        shape = (x.shape[1], 1) if positions is None else positions.shape
        if len(shape) != 2 or shape[0] != x.shape[1] or shape[1] < 1:
            raise InputError(f"positions have shape {shape}; give each of {x.shape[1]} tokens its own, (length, axes)")
        if self.width % (2 * shape[1]):
            raise InputError(
                f"width {self.width} cannot be shared by the sines and cosines of {shape[1]} axes; choose a multiple of"
                f" {2 * shape[1]}"
            )
        check_condition(x, time, label, self.num_classes)


def encoding(positions: Float[Array, "length axes"], width: int) -> Float[Array, "length width"]:
    """The sinusoids of all axes, concatenated."""
    axes = positions.shape[1]
    return jnp.concatenate([sinusoid(p, width // axes, last=False) for p in positions.T], axis=-1)


class DiT(nn.Module):
    """The network of the paper for images. Patches are tokens. The defaults are its size S and patch size 2.

    For the paper's latent images (32x32x4, 8 channels out, 1000 classes), sizes S, B, L, XL have 32,865,056,
    130,315,808, 457,840,672, 674,834,720 parameters. The published code also counts the fixed positions, 256 · width.

    Attributes:
      patch_size: height and width of a patch. Those of an image must be multiples of it.
      out_channels: channels of the output.
      width, depth, heads, mlp_ratio, dropout, num_classes, dtype, remat: see `TokenDiT`.
    """

    patch_size: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    out_channels: int = 3
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False

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

        Args: those of `unet.UNet`.

        Raises:
          InputError: if sizes, time or label do not fit.
        """
        if x.ndim != 4:
            raise InputError(f"x has shape {x.shape}; give images as (batch, height, width, channels)")
        height, width = x.shape[1:3]
        p = self.patch_size
        if p < 1 or height % p or width % p:
            raise InputError(
                f"an image of {height}x{width} cannot be divided into patches of {p}x{p}; pad it, or choose another "
                "patch_size"
            )
        tokens = TokenDiT(
            p * p * self.out_channels,
            self.width,
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.dropout,
            self.num_classes,
            self.dtype,
            self.remat,
            name="tokens",
        )
        rows, columns = jnp.indices((height // p, width // p)).reshape(2, -1)
        out = tokens(patchify(x, p), time, label, dropout_key, jnp.stack([columns, rows], axis=1), span)
        return unpatchify(out, p, height, width)


def patchify(x: Float[Array, "batch height width channels"], p: int) -> Float[Array, "batch length features"]:
    """Makes one token of the pixels of each p x p patch. Patches and the pixels in them are in row-major order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // p, p, width // p, p, channels).swapaxes(2, 3)
    return x.reshape(batch, -1, p * p * channels)


def unpatchify(
    tokens: Float[Array, "batch length features"], p: int, height: int, width: int
) -> Float[Array, "batch height width channels"]:
    """The inverse of `patchify`."""
    batch = tokens.shape[0]
    x = tokens.reshape(batch, height // p, width // p, p, p, -1).swapaxes(2, 3)
    return x.reshape(batch, height, width, -1)
