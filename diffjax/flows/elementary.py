"""Flows of each entry by itself, and a permutation. Also the scales of coupling and autoregressive layers.

    affine   y = shift + scale x
    logit    y = log(p/(1 - p)),  p = margin + (1 - 2 margin) x          (data in [0, 1]: Dinh et al. 2017, section 4.1)
    reverse  y_i = x_{dim + 1 - i}

A layer y = shift + exp(log_scale) x takes two numbers m and s from a network. It uses them in one of two forms:

    bounded  shift = m,           log_scale = limit tanh(s/limit)        (Dinh et al. 2017)
    gated    shift = (1 - σ) m,   log_scale = log σ,  σ = sigmoid(s + bias)       (Kingma et al. 2016, eq. 14)
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike, as_float
from diffjax.errors import InputError
from diffjax.flows.flow import Flow, concrete

Form = Callable[[Array, Array], tuple[Array, Array]]  # m, s -> shift, log_scale


def affine(shift: Float[Array, "*#batch dim"], scale: Float[Array, "*#batch dim"]) -> Flow:
    """x -> shift + scale x. With scale = exp(parameters) it is the last layer of NICE (Dinh et al. 2015, section 3.3).

    Raises:
        InputError: if a scale is not positive and finite. This is not checked inside `jit`.
    """
    shift, scale = alike(shift, scale)
    if concrete(scale) and not ((scale > 0) & jnp.isfinite(scale)).all():
        raise InputError(f"scale must be positive and finite everywhere, not {scale}: otherwise there is no inverse")

    def forward(x: Array) -> tuple[Array, Array]:
        x, m, s = alike(x, shift, scale)
        y = m + s * x
        return y, jnp.broadcast_to(jnp.log(s), y.shape).sum(-1)

    def inverse(y: Array) -> tuple[Array, Array]:
        y, m, s = alike(y, shift, scale)
        x = (y - m) / s
        return x, -jnp.broadcast_to(jnp.log(s), x.shape).sum(-1)

    return Flow(forward, inverse)


def logit(margin: float) -> Flow:
    """From [0, 1] to the real line. `margin` keeps the ends finite.

    Raises:
        InputError: if margin is not in (0, 1/2).
    """
    if not 0 < margin < 0.5:
        raise InputError(f"margin must lie between 0 and 1/2, both excluded, not {margin!r}")
    width = 1 - 2 * margin

    def log_det(y: Array) -> Array:
        """That of forward: dx/dy = σ(y) σ(-y)/width."""
        return (jax.nn.softplus(y) + jax.nn.softplus(-y) + math.log(width)).sum(-1)

    def forward(x: Array) -> tuple[Array, Array]:
        p = margin + width * as_float(x)
        y = jnp.log(p) - jnp.log1p(-p)
        return y, log_det(y)

    def inverse(y: Array) -> tuple[Array, Array]:
        y = as_float(y)
        return (jax.nn.sigmoid(y) - margin) / width, -log_det(y)

    return Flow(forward, inverse)


def _reversed(x: Array) -> tuple[Array, Array]:
    x = as_float(x)
    return x[..., ::-1], jnp.zeros(x.shape[:-1], x.dtype)


reverse = Flow(_reversed, _reversed)


def bounded(limit: float = 2.0) -> Form:
    """Scales between exp(-limit) and exp(limit). m = s = 0 gives the identity.

    Raises:
        InputError: if limit is not positive.
    """
    if not limit > 0:
        raise InputError(f"limit must be positive, not {limit!r}")
    return lambda m, s: (m, limit * jnp.tanh(s / limit))


def gated(bias: float = 2.0) -> Form:
    """Scales below 1, but near 1 at the start: the bias opens the gate, as in an LSTM."""
    return lambda m, s: (jax.nn.sigmoid(-s - bias) * m, jax.nn.log_sigmoid(s + bias))


def shift_and_log_scale(conditioner: Callable[[Array], tuple[Array, Array]], form: Form, x: Array) -> tuple:
    """Shift and log-scale of each entry, in the type of x. Raises `InputError` unless both have the shape of x."""
    m, s = conditioner(x)
    shift, log_scale = form(jnp.asarray(m, x.dtype), jnp.asarray(s, x.dtype))
    if not shift.shape == log_scale.shape == x.shape:
        raise InputError(
            f"conditioner must give two arrays of x's shape {x.shape}, not {shift.shape}, {log_scale.shape}"
        )
    return shift, log_scale
