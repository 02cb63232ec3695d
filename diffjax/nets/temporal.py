"""Time dependence in the networks of Sohl-Dickstein et al. 2015: only the read-out depends on time (appendix D.2).

TimeReadout   out = h W(t) + b(t), a linear map that is interpolated between knots in time
bumps         g_j(t) ∝ exp(-(t - τ_j)²/2w²), Σ_j g_j(t) = 1, τ_j from 0 to 1: out = Σ_j g_j(t) y_j
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.dtypes import as_float


def bumps(t: Float[Array, " batch"], num_bumps: int) -> Float[Array, "batch num_bumps"]:
    """The normalised bumps at t in [0, 1]; their width is the distance between neighbours."""
    t = as_float(t)
    if num_bumps == 1:
        return jnp.ones((t.shape[0], 1), t.dtype)
    centres = jnp.linspace(0.0, 1.0, num_bumps, dtype=t.dtype)
    return jax.nn.softmax(-0.5 * ((t[:, None] - centres) * (num_bumps - 1)) ** 2, axis=-1)


def hats(t: Float[Array, " batch"], num_knots: int) -> Float[Array, "batch num_knots"]:
    """The basis of linear interpolation between `num_knots` equidistant knots from 0 to 1."""
    t = as_float(t)
    return jax.nn.relu(1.0 - jnp.abs(t[:, None] * (num_knots - 1) - jnp.arange(num_knots, dtype=t.dtype)))


class TimeReadout(nn.Module):
    """out = h W(t) + b(t), where W and b are linear in t between knots. W and b start at zero.

    With num_steps + 1 knots, the number of states of a chain, every step has its own map.

    Call: h (batch, features), t (batch,) in [0, 1] -> (batch, out_features).
    """

    out_features: int
    num_knots: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch features"], t: Float[Array, " batch"]) -> Float[Array, "batch out"]:
        # All knots for every example: gathering two kernels each is less work, but its gradient is a slow scatter.
        out = nn.Dense(self.num_knots * self.out_features, kernel_init=nn.initializers.zeros_init())(as_float(h))
        weights = hats(t, self.num_knots).astype(out.dtype)
        return jnp.einsum("bk,bko->bo", weights, out.reshape(len(h), self.num_knots, -1))
