"""Small networks for vectors: two of Sohl-Dickstein et al. 2015 (appendix D.1), and one for scores.

RBF       w_k(x) ∝ exp(-‖x - c_k‖²/2s_k²), Σ_k w_k = 1; the read-out at t is linear in w  (the swiss roll)
MLP       sigmoid layers; the read-out at t is linear in the last one                     (the heartbeat)
TimeMLP   swish layers; a linear map of the time's sinusoid is added before each swish

In the paper's two networks, only the read-out depends on time. The output of all three is zero before training.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.dtypes import alike, as_float
from diffjax.nets.layers import ZERO, sinusoid
from diffjax.nets.temporal import TimeReadout


class RBF(nn.Module):
    """Call: x (batch, dim), t (batch,) in [0, 1] -> (batch, out_features).

    units: K, the number of normalised radial basis functions.
    local: if true, there are also features w_k (x - c_k): the read-out is affine near every centre (K + K·dim features)
        instead of constant (K features, as in the paper).
    num_knots: of the read-out; number of steps + 1 gives every step its own read-out, as in the paper.
    """

    units: int
    out_features: int
    num_knots: int
    local: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"], t: Float[Array, " batch"]) -> Float[Array, "batch out"]:
        centres = self.param("centres", nn.initializers.normal(1.0), (self.units, x.shape[-1]), jnp.float32)
        log_width = self.param("log_width", nn.initializers.constant(-1.0), (self.units,), jnp.float32)
        x, centres, log_width = alike(x, centres, log_width)
        offset = x[:, None, :] - centres
        w = jax.nn.softmax(-0.5 * (offset**2).sum(-1) * jnp.exp(-2 * log_width), axis=-1)
        h = jnp.concatenate([w, (w[..., None] * offset).reshape(len(x), -1)], -1) if self.local else w
        return TimeReadout(self.out_features, self.num_knots)(h, t)


class MLP(nn.Module):
    """Call: x (batch, dim), t (batch,) in [0, 1] -> (batch, out_features). The paper has features (50, 50, 50)."""

    features: tuple[int, ...]
    out_features: int
    num_knots: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"], t: Float[Array, " batch"]) -> Float[Array, "batch out"]:
        x = as_float(x)
        for size in self.features:
            x = jax.nn.sigmoid(nn.Dense(size)(x))
        return TimeReadout(self.out_features, self.num_knots)(x, t)


class TimeMLP(nn.Module):
    """Call: x (batch, dim), time (batch,) -> (batch, out_features). time is 0 .. 999, as for the U-Net."""

    features: tuple[int, ...]
    out_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch dim"], time: Float[Array, " batch"]) -> Float[Array, "batch out"]:
        x, embedding = as_float(x), sinusoid(time, 64)
        for size in self.features:
            x = nn.swish(nn.Dense(size)(x) + nn.Dense(size)(embedding).astype(x.dtype))
        return nn.Dense(self.out_features, kernel_init=ZERO)(x)
