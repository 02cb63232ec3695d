"""Planar flows: a layer of one tanh unit (Rezende & Mohamed 2015, eq. 10 and appendix A.1).

    y = z + û tanh(t),  t = wᵀz + b,    û = u + (m(wᵀu) - wᵀu) w/|w|²,  m(a) = -1 + softplus(a) > -1
    log det = log(1 + wᵀû sech² t) = log(tanh² t + s sech² t),    s = 1 + wᵀû = softplus(wᵀu)

The second form has no cancellation where wᵀû is near -1. Below -1 there is no inverse. The inverse is that of t -> t +
(s - 1) tanh t. This function is odd and increasing, and on t ≥ 0 concave or convex. So Newton's method from one end of
the bracket converges from one side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax import eager
from diffjax.dtypes import alike
from diffjax.errors import InputError
from diffjax.flows.flow import Flow, check_dim, concrete

TINY = 1e-12  # |w|² below which û no longer grows like 1/|w|
NEWTON_STEPS = 40  # 6 to 10 are enough, but not where s and t are near 0, a triple root


def planar(u: Float[Array, "*#batch dim"], w: Float[Array, "*#batch dim"], b: Float[Array, "*#batch"]) -> Flow:
    """z -> z + û tanh(wᵀz + b), for any real parameters. Their leading axes broadcast against those of z.

    The inverse has float precision and is differentiable by the implicit function theorem.

    Raises:
        InputError: if the shapes do not fit, or w is 0. The latter is not checked inside `jit`.
    """
    u, w, b = alike(u, w, b)
    if w.ndim < 1 or u.shape != w.shape or b.shape != w.shape[:-1]:
        raise InputError(
            "u, w and b must have shapes (*batch, dim), (*batch, dim) and (*batch,), not "
            f"{u.shape}, {w.shape}, {b.shape}"
        )
    if concrete(w) and not (np.square(w).sum(-1) > 0).all():
        raise InputError("w is 0, which makes a planar flow a shift: give it a direction")

    def parts(z: Array) -> tuple[Array, Array, Array, Array]:
        """z, wᵀz + b, û and s, of one type."""
        check_dim("this planar flow", w.shape[-1], z)
        z, u_, w_, b_ = alike(z, u, w, b)
        square, dot = (w_ * w_).sum(-1), (w_ * u_).sum(-1)
        floor = jnp.maximum(square, TINY)
        share = square / floor  # 1 unless w is almost 0
        s = share * jax.nn.softplus(dot) + (1 - share) * (1 + dot)
        u_hat = u_ + ((jax.nn.softplus(dot) - 1 - dot) / floor)[..., None] * w_
        return z, (w_ * z).sum(-1) + b_, u_hat, s

    def forward(z: Array) -> tuple[Array, Array]:
        z, t, u_hat, s = parts(z)
        return z + u_hat * jnp.tanh(t)[..., None], jnp.log(_slope(s, t))

    def backward(y: Array) -> tuple[Array, Array]:
        y, c, u_hat, s = parts(y)
        t = _solve(s, c)
        return y - u_hat * jnp.tanh(t)[..., None], -jnp.log(_slope(s, t))

    return Flow(forward, lambda y: eager.once(backward, y))


def _slope(s: Array, t: Array) -> Array:
    """The derivative of t + (s - 1) tanh t. It is the determinant of the flow."""
    sech_square = 4 * jax.nn.sigmoid(2 * t) * jax.nn.sigmoid(-2 * t)
    return jnp.tanh(t) ** 2 + s * sech_square


def _solve(s: Array, c: Array) -> Array:
    """t with t + (s - 1) tanh t = c."""
    s, c = jnp.broadcast_arrays(s, c)
    slope = jax.lax.stop_gradient(s)
    target = jnp.abs(jax.lax.stop_gradient(c))

    def residual(t: Array) -> Array:
        return t + (slope - 1) * jnp.tanh(t) - target

    def step(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, t = state
        f = residual(t)
        low, high = jnp.where(f < 0, t, low), jnp.where(f < 0, high, t)
        newton = t - f / _slope(slope, t)
        inside = (newton >= low) & (newton <= high)
        return low, high, jnp.where(inside, newton, 0.5 * (low + high))

    # |t - c| < |s - 1|. If s > 1, t is nearer to 0 than c, otherwise farther. Newton starts where it cannot overshoot.
    low = jnp.maximum(target - jnp.maximum(slope - 1, 0), 0)
    high = target + jnp.maximum(1 - slope, 0)
    start = jnp.where(slope > 1, low, high)

    def solve(_: object, __: Array) -> Array:
        return jnp.sign(c) * jax.lax.fori_loop(0, NEWTON_STEPS, step, (low, high, start))[2]

    return jax.lax.custom_root(
        lambda t: t + (s - 1) * jnp.tanh(t) - c, start, solve, lambda linear, y: y / linear(jnp.ones_like(y))
    )
