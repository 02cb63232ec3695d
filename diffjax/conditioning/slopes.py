"""How log r changes with x: its gradient or, for bits, the difference of its values at 1 and 0 of each bit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import eager
from diffjax.errors import InputError
from diffjax.schedules import broadcast_to

LogR = Callable[[Array, Array], Array]  # (x (batch, *event), t (batch,)) -> (batch,), up to a constant


def gradient(log_r: LogR, x: Array, t: Array) -> Array:
    def total(x: Array) -> Array:
        value = log_r(x, t)
        _check_shape(value, x)
        return value.sum()

    slope = jax.grad(total)(x)
    check_slope(slope, bits=False)
    return slope


def bit_log_odds(log_r: LogR, x: Array, t: Array) -> Array:
    """log r(x, bit i = 1) - log r(x, bit i = 0) for every i, the other bits as in x; 0 where r is 0 for both."""
    flat = x.reshape(x.shape[0], -1)
    here = log_r(x, t)
    _check_shape(here, x)

    def flip(i: Array) -> Array:
        return log_r(flat.at[:, i].set(1 - flat[:, i]).reshape(x.shape), t)

    size = flat.shape[1]
    there = eager.once(lambda bits: jax.lax.map(flip, bits, batch_size=min(size, 32)), jnp.arange(size))
    there = there.T.reshape(x.shape)
    here = broadcast_to(here, x)
    nothing = jnp.isneginf(here) & jnp.isneginf(there)
    odds = jnp.where(nothing, 0.0, (1 - 2 * x) * (there - jnp.where(nothing, 0.0, here)))
    check_slope(odds, bits=True)
    return odds


def check_slope(slope: Array, bits: bool) -> None:
    if isinstance(slope, jax.core.Tracer):
        return
    if bits and np.isnan(np.asarray(slope)).any():
        raise InputError("log r is NaN: it must be a number, or -inf where r is 0")
    if not bits and not np.isfinite(np.asarray(slope)).all():
        raise InputError(
            "the gradient of log r is not finite: r must be positive and smooth; for known pixels use inpainting with "
            "given or tilted"
        )


def _check_shape(value: Array, x: Array) -> None:
    if jnp.shape(value) != x.shape[:1]:
        raise InputError(f"log_r must return one number per example, {x.shape[:1]}, not shape {jnp.shape(value)}")
