"""The image network of Sohl-Dickstein et al. 2015, appendix D.2: multi-scale convolutions and a dense path.

convolutional path   h ← softplus(Σ_k up_k(K_k * pool_k(h))): the image averaged over blocks of 2^k pixels, convolved
                     with a kernel of that scale, and repeated up to full size, k = 0 .. num_scales - 1
dense path           tanh layers on the image as one vector; the last one has a few outputs for each pixel
pixels               tanh layers on the features of both paths at each pixel
read-out             Σ_j g_j(t) (h W_j + b_j),  g_j the temporal bumps: time enters only here

The read-out starts at zero, so the network does, too.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.dtypes import alike, as_float
from diffjax.errors import InputError
from diffjax.nets.temporal import bumps


class MultiScaleConv(nn.Module):
    """Σ_k up_k(K_k * pool_k(x)) + b: (batch, H, W, C) -> (batch, H, W, features). Convolutions pad with zeros.

    H and W must be multiples of 2^(num_scales - 1).
    """

    features: int
    num_scales: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width features"]:
        window = (self.kernel_size, self.kernel_size)
        pyramid = [x]
        for _ in range(self.num_scales - 1):
            batch, height, width, channels = pyramid[-1].shape
            blocks = pyramid[-1].reshape(batch, height // 2, 2, width // 2, 2, channels)
            pyramid.append(blocks.mean((2, 4)))

        def conv(k: int) -> Array:
            return nn.Conv(self.features, window, use_bias=k == 0, name=f"scale_{k}")(pyramid[k])

        # From coarse to fine, the sum is doubled once per scale. That is less work than enlarging each scale by itself.
        out = conv(self.num_scales - 1)
        for k in reversed(range(self.num_scales - 1)):
            out = conv(k) + out.repeat(2, axis=1).repeat(2, axis=2)
        return out


class MultiScale(nn.Module):
    """Call: x (batch, H, W, C) of about unit variance, t (batch,) in [0, 1] -> (batch, H, W, out_channels).

    Attributes:
        out_channels: of the output; the paper has two for every channel of x, mean and variance.
        features: channels of the convolutional path.
        num_layers: of the convolutional path; 0 leaves it out, as the paper did for MNIST.
        num_scales: number of scales; the coarsest one averages over blocks of 2^(num_scales - 1) pixels a side.
        kernel_size: of the convolutions at every scale.
        dense_features: width of the dense path.
        dense_layers: of the dense path, including the one to the pixels; 0 leaves it out.
        dense_out: outputs of the dense path for each pixel.
        pixel_features: width of the layers on each pixel.
        pixel_layers: number of layers on each pixel.
        num_bumps: J, the number of temporal bumps.
    """

    out_channels: int
    features: int = 32
    num_layers: int = 2
    num_scales: int = 3
    kernel_size: int = 3
    dense_features: int = 500
    dense_layers: int = 2
    dense_out: int = 2
    pixel_features: int = 32
    pixel_layers: int = 2
    num_bumps: int = 10

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], t: Float[Array, " batch"]
    ) -> Float[Array, "batch height width out_channels"]:
        """Raises InputError if the shapes of x and t do not fit, or if both paths are left out."""
        self._check(x, t)
        batch, height, width, _ = x.shape
        x = as_float(x)
        paths = []
        if self.num_layers:
            h = x
            for i in range(self.num_layers):
                h = nn.softplus(MultiScaleConv(self.features, self.num_scales, self.kernel_size, name=f"conv_{i}")(h))
            paths.append(h)
        if self.dense_layers:
            h = x.reshape(batch, -1)
            sizes = [self.dense_features] * (self.dense_layers - 1) + [height * width * self.dense_out]
            for i, size in enumerate(sizes):
                h = nn.tanh(nn.Dense(size, name=f"dense_{i}")(h))
            paths.append(h.reshape(batch, height, width, self.dense_out))
        # One long matrix: products, and above all their gradients, are up to twice as fast as with a 4-D array.
        h = jnp.concatenate(paths, axis=-1).reshape(batch * height * width, -1)
        for i in range(self.pixel_layers):
            h = nn.tanh(nn.Dense(self.pixel_features, name=f"pixel_{i}")(h))

        zero = nn.initializers.zeros_init()
        kernel = self.param("read_out", zero, (self.num_bumps, h.shape[-1], self.out_channels), jnp.float32)
        bias = self.param("read_out_bias", zero, (self.num_bumps, self.out_channels), jnp.float32)
        # The bumps mix the J read-outs before they act on pixels: J times less work than mixing J outputs per pixel.
        g = bumps(t, self.num_bumps).astype(h.dtype)
        h, kernel, bias = alike(h, kernel, bias)
        h = h.reshape(batch, height * width, -1)
        out = jnp.einsum("bpf,bfc->bpc", h, jnp.einsum("bj,jfc->bfc", g, kernel)) + (g @ bias)[:, None, :]
        return out.reshape(batch, height, width, self.out_channels)

    def _check(self, x: Array, t: Array) -> None:
        if x.ndim != 4:
            raise InputError(f"x has shape {x.shape}; give images as (batch, height, width, channels)")
        if t.shape != x.shape[:1]:
            raise InputError(f"t has shape {t.shape}; give one number per image, {x.shape[:1]}")
        if not (self.num_layers or self.dense_layers):
            raise InputError("num_layers and dense_layers are both 0; the network needs one of its two paths")
        height, width = x.shape[1:3]
        factor = 2 ** (self.num_scales - 1)
        if self.num_layers and (height % factor or width % factor):
            raise InputError(
                f"an image of {height}x{width} cannot be averaged over blocks of {factor}x{factor}; pad it to "
                f"multiples of {factor} or give num_scales less than {self.num_scales}"
            )
