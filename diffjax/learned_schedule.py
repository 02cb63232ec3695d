"""A learned noise schedule (Kingma et al. 2021, "Variational Diffusion Models"): gamma(t) = -log SNR(t) has parameters.

    alpha² = sigmoid(-gamma),   sigma² = sigmoid(gamma)                                       (eq. 3 and 4)
    gamma(t) = gamma_0 + (gamma_1 - gamma_0) u(t),   u(t) = (m(t) - m(0))/(m(1) - m(0))       (appendix H)
    m(t) = c t + Σ_j w_j sigmoid(a_j t + b_j),   c, w, a > 0

so u rises from 0 to 1. (The paper writes l1 + l3(sigmoid(l2(l1))), with l1 linear in t: these are the same functions.)

The bound in continuous time depends on the ends gamma_0 and gamma_1, and not on the interior u. But the variance of its
estimate depends on u. So the ends are trained on the bound, as the network is, and the interior is trained on the
variance. Let l be the cost of one example at a random time:

    ∇Var[l] = ∇E[l²] - 2 E[l] ∇E[l] = E[2 l ∇l],   because ∇E[l] = 0 for the interior         (appendix I.2)

`least_variance` applies this factor 2 l in the backward pass from the cost to the interior. So there is one loss and
one backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import pytrees
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.schedules import check_times

Interior = dict[str, Array]  # log_c (), and log_a, b, log_w (units,)
SHARPNESS = 10.0  # a at the start: each unit rises over a tenth of the times


@pytrees.register
@dataclass(frozen=True)
class Learned:
    """A variance-preserving `Schedule`, differentiable in its three fields. Some noise is left at t = 0."""

    gamma_0: ArrayLike
    gamma_1: ArrayLike
    interior: Interior

    prior_std = 1.0

    def position(self, t: ArrayLike) -> Array:
        """u(t), strictly increasing from 0 to 1."""
        check_times("t", t)
        t = as_float(t)
        weights = {name: jnp.asarray(value, t.dtype) for name, value in self.interior.items()}
        return _rise(weights, t) / _rise(weights, jnp.ones_like(t))

    def gamma(self, t: ArrayLike) -> Array:
        """-log SNR."""
        return self.between(self.position(t))

    def between(self, u: Array) -> Array:
        """gamma_0 + (gamma_1 - gamma_0) u."""
        low, high = (jnp.asarray(end, u.dtype) for end in (self.gamma_0, self.gamma_1))
        return low + (high - low) * u

    def rate(self, t: ArrayLike) -> tuple[Array, Array]:
        """gamma(t) and gamma'(t)."""
        t = as_float(t)
        return jax.jvp(self.gamma, (t,), (jnp.ones_like(t),))

    def alpha(self, t: ArrayLike) -> Array:
        return alpha_sigma(self.gamma(t))[0]

    def sigma(self, t: ArrayLike) -> Array:
        return alpha_sigma(self.gamma(t))[1]

    def log_snr(self, t: ArrayLike) -> Array:
        return -self.gamma(t)


def learned(gamma_0: ArrayLike, gamma_1: ArrayLike, interior: Interior) -> Learned:
    """The schedule from log SNR -gamma_0 at t = 0 to -gamma_1 at t = 1.

    Args:
        interior: the parameters of u, as `interior` makes them.

    Raises:
        InputError: for concrete ends, unless gamma_0 < gamma_1 and both are finite.
    """
    if not any(isinstance(end, jax.core.Tracer) for end in (gamma_0, gamma_1)):
        low, high = np.asarray(gamma_0), np.asarray(gamma_1)
        if not -np.inf < low < high < np.inf:
            raise InputError(f"gamma_0={low} must be less than gamma_1={high}, and both finite: gamma is -log SNR")
    return Learned(gamma_0, gamma_1, interior)


def interior(units: int = 1024) -> Interior:
    """Parameters of u at the start: units that rise one after the other, so that u(t) is nearly t.

    Raises:
        InputError: unless units is a positive integer.
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise InputError(f"units={units!r} must be a positive integer, the width of the monotone network")
    middles = (jnp.arange(units, dtype=float) + 0.5) / units
    return {
        "log_c": jnp.zeros(()),
        "log_a": jnp.full(units, np.log(SHARPNESS), float),
        "b": -SHARPNESS * middles,
        "log_w": jnp.full(units, -np.log(units), float),
    }


def alpha_sigma(gamma: Array) -> tuple[Array, Array]:
    """alpha and sigma at gamma = -log SNR: neither cancels, and both keep their gradients at the ends."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma)), jnp.exp(0.5 * jax.nn.log_sigmoid(gamma))


def least_variance(
    schedule: Learned,
    t: Float[Array, " batch"],
    cost: Callable[[Array, Array], Array],
) -> Float[Array, " batch"]:
    """cost(gamma(t), gamma'(t)), but the interior of the schedule gets the gradient of the squared cost.

    Everything else, gamma_0 and gamma_1 included, gets the gradient of the cost.

    Args:
        t: a time for each example, uniform on [0, 1].
        cost: (gamma (batch,), gamma' (batch,)) -> (batch,). Entry i of the result may depend only on entries i.
    """
    t = as_float(t)
    u, slope = jax.jvp(schedule.position, (t,), (jnp.ones_like(t),))
    u, slope, link = _squared(u, slope)
    gamma, rate = jax.jvp(schedule.between, (u,), (slope,))
    return _linked(cost(gamma, rate), link)


@jax.custom_vjp
def _squared(u: Array, slope: Array) -> tuple[Array, Array, Array]:
    """u, slope and a link, which is 0. In the backward pass the link carries 2 l, and it multiplies the other two."""
    return u, slope, jnp.zeros_like(u)


@jax.custom_vjp
def _linked(cost: Array, link: Array) -> Array:
    """The cost l itself. In the backward pass the link gets 2 l, the derivative of l² with respect to l."""
    return cost


_squared.defvjp(
    lambda u, slope: (_squared(u, slope), None),
    lambda _, back: (back[2] * back[0], back[2] * back[1]),
)
_linked.defvjp(
    lambda cost, link: (cost, (cost, link)),
    lambda saved, back: (back, (2.0 * saved[0]).astype(saved[1].dtype)),
)


def _rise(weights: Interior, t: Array) -> Array:
    """m(t) - m(0), subtracted unit by unit, so that it is exactly 0 at t = 0."""
    inner = jnp.exp(weights["log_a"]) * t[..., None] + weights["b"]
    units = jax.nn.sigmoid(inner) - jax.nn.sigmoid(weights["b"])
    return jnp.exp(weights["log_c"]) * t + (jnp.exp(weights["log_w"]) * units).sum(-1)
