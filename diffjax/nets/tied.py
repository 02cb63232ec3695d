"""An auto-encoder whose decoder has the encoder's weights, transposed (Vincent et al. 2008; Rifai et al. 2011).

    h_0 = x,  h_l = a(h_{l-1} W_l + b_l),   and back  y_L = h_L,  y_{l-1} = a(y_l W_lᵀ + c_l)

a is softplus between the layers and a sigmoid for the code h_L and the output y_0. The weights are tied because of the
penalty on the encoder's slopes: with free weights, a small encoder and a large decoder would evade it.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike


class Tied(nn.Module):
    """The auto-encoder x -> y_0. `encode` gives the code h_L, `decode` gives y_0 from it.

    Attributes:
        sizes: of x, of the hidden layers if any, and of the code.

    The parameters are kernel_l, up_l, down_l: W_{l+1}, b_{l+1}, c_{l+1} above.
    """

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
