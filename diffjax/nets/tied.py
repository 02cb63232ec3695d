"""An auto-encoder whose decoder's weights are the encoder's, transposed (Vincent et al. 2008; Rifai et al. 2011).

    h_0 = x,  h_l = a(h_{l-1} W_l + b_l),   and back  y_L = h_L,  y_{l-1} = a(y_l W_lᵀ + c_l)

with softplus between the layers and sigmoids for the code h_L and the output y_0. Tied, because a penalty on the
encoder's slopes alone would be evaded by a small encoder and a large decoder.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike


class Tied(nn.Module):
    """`sizes`: of x, of the hidden layers if any, and of the code. Parameters: kernel_l, up_l, down_l; l from 0."""

    sizes: Sequence[int]

    def setup(self) -> None:
        zeros, pairs = nn.initializers.zeros, list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self.kernels = [
            self.param(f"kernel_{l}", nn.initializers.glorot_uniform(), pair, jnp.float32)
            for l, pair in enumerate(pairs)
        ]
        self.up = [self.param(f"up_{l}", zeros, (above,), jnp.float32) for l, (_, above) in enumerate(pairs)]
        self.down = [self.param(f"down_{l}", zeros, (below,), jnp.float32) for l, (below, _) in enumerate(pairs)]

    def encode(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch code"]:
        x, *params = alike(x, *self.kernels, *self.up)
        kernels, up = params[: len(self.up)], params[len(self.up) :]
        for kernel, bias in zip(kernels[:-1], up[:-1], strict=True):
            x = nn.softplus(x @ kernel + bias)
        return nn.sigmoid(x @ kernels[-1] + up[-1])

    def decode(self, code: Float[Array, "*batch code"]) -> Float[Array, "*batch dim"]:
        h, *params = alike(code, *self.kernels, *self.down)
        kernels, down = params[: len(self.down)], params[len(self.down) :]
        for kernel, bias in zip(kernels[:0:-1], down[:0:-1], strict=True):
            h = nn.softplus(h @ kernel.T + bias)
        return nn.sigmoid(h @ kernels[0].T + down[0])

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        return self.decode(self.encode(x))
