"""How the networks of Sohl-Dickstein et al. 2015 depend on time: through their read-out alone (appendix D.2).

StepReadout   out = h W_t + b_t, a linear map of its own for every step of the chain
bumps         g_j(t) ∝ exp(-(t - τ_j)²/2w²), Σ_j g_j(t) = 1, τ_j from 0 to 1: out = Σ_j g_j(t) y_j
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def bumps(t: Float[Array, " batch"], num_bumps: int) -> Float[Array, "batch num_bumps"]:
    """The normalised bumps at t in [0, 1]; their width is the distance between neighbours."""
    if num_bumps == 1:
        return jnp.ones((t.shape[0], 1))
    centres = jnp.linspace(0.0, 1.0, num_bumps)
    return jax.nn.softmax(-0.5 * ((t[:, None] - centres) * (num_bumps - 1)) ** 2, axis=-1)


class StepReadout(nn.Module):
    """A linear map for every step i of a chain, at t = i/num_steps, i = 1 .. num_steps. It begins as zero.

    Call: h (batch, features), t (batch,) on the grid -> (batch, out_features).
    """

    out_features: int
    num_steps: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch features"], t: Float[Array, " batch"]) -> Float[Array, "batch out"]:
        zero = nn.initializers.zeros_init()
        kernel = self.param("kernel", zero, (self.num_steps, h.shape[-1], self.out_features))
        bias = self.param("bias", zero, (self.num_steps, self.out_features))
        step = jnp.clip(jnp.round(t * self.num_steps).astype(int), 1, self.num_steps) - 1
        return jnp.einsum("bi,bio->bo", h, kernel[step]) + bias[step]
