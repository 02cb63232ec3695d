"""Masked dense networks (MADE, Germain et al. 2015): output i depends only on the inputs before i.

Inputs have degrees 1..dim, hidden units degrees below dim, outputs 1..dim. A context vector has degree 0. A hidden unit
has weights only from units of at most its own degree. An output has weights only from units of a lower degree.

Output i sees input j only through units of a degree from j to i - 1. All pairs j < i are connected if every hidden
layer has at least dim - 1 units. The context also reaches all outputs if every hidden layer has at least dim units.
Fewer units are not enough: n degrees divide the inputs into n + 1 runs, and no output sees an input of its own run.
Runs of equal length leave out the fewest pairs.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

from diffjax.dtypes import alike, as_float


class MaskedDense(nn.Module):
    """A dense layer whose weights are 0 where `mask` is false. With `zero`, all its weights start at 0."""

    zero: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch inputs"], mask: Bool[np.ndarray, "inputs units"]
    ) -> Float[Array, "*batch units"]:
        init = nn.initializers.zeros if self.zero else nn.linear.default_kernel_init
        kernel = self.param("kernel", init, mask.shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, mask.shape[1:], jnp.float32)
        x, kernel, bias = alike(x, kernel, bias)
        return x @ jnp.where(mask, kernel, 0.0) + bias


def hidden_degrees(dim: int, features: Sequence[int], context: bool) -> np.ndarray:
    """The degrees of hidden units, ascending and spread over the inputs: as many as the narrowest layer can hold.

    All layers use only these degrees: a unit of another degree would not get its information through the narrowest
    layer.
    """
    least = 0 if context else min(1, dim - 1)  # units of degree 0 see only the context
    inputs = dim + 1 - least  # the context counts as one
    units = min([*features, inputs - 1])
    return least - 1 + -(-np.arange(1, units + 1) * inputs // (units + 1))


class MADE(nn.Module):
    """x (*batch, dim), context (*batch, any) or None -> (out, *batch, dim): `m, s = made(x)`.

    Entry i of each of the `out` vectors depends only on x_1..x_{i-1} and the context. It depends on all of these if
    every layer of `features` has at least dim units (dim - 1 without a context). With `zero`, the last layer starts at
    0. The units are swish, so that the outputs have smooth gradients.
    """

    features: Sequence[int]
    out: int = 2
    zero: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch dim"], context: Float[Array, "*batch features"] | None = None
    ) -> Float[Array, "out *batch dim"]:
        dim = x.shape[-1]
        hidden = hidden_degrees(dim, self.features, context is not None)
        degrees, h = np.arange(1, dim + 1), as_float(x)
        for i, units in enumerate(self.features):
            later = hidden[np.arange(units) % len(hidden)]
            h = MaskedDense()(h, degrees[:, None] <= later)
            if i == 0 and context is not None:
                h = h + nn.Dense(units, use_bias=False)(jnp.asarray(context, h.dtype))
            degrees, h = later, nn.swish(h)
        last = np.tile(degrees[:, None] < np.arange(1, dim + 1), self.out)
        y = MaskedDense(self.zero)(h, last)
        return jnp.moveaxis(y.reshape(*y.shape[:-1], self.out, dim), -2, 0)
