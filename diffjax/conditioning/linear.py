"""Observations of a linear function of the channels: colourisation (Song et al. 2021, section 5 and appendix I.2).

    u = B x over the channels of every pixel, B orthonormal:    u_t = alpha u_0 + sigma B eps,   B eps ~ N(0, I)

Rotated noise has the same law. So u has the process of x, and a Predict of x is also one of u: x_0, eps, v and the
score all rotate with x. If the first row of B is along the weights of grey, the grey value is |w| times the first
channel of u. A known grey value is then inpainting of that channel. The result is again a Predict in the channels of x,
for every sampler and every likelihood.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax import dtypes
from diffjax.conditioning.guidance import Covariance, given
from diffjax.conditioning.observations import inpainting
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.predictions import Predict, Prediction
from diffjax.processes import Gaussian


def colourisation(
    process: Gaussian,
    predict: Predict,
    grey: Float[Array, "*shape 1"],
    weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    covariance: Covariance = "full",
) -> Predict:
    """The Predict of p(x_0 | grey), grey = Σ_c weights_c x_0,c of every pixel: `given`, in rotated channels.

    `covariance` is that of `given`: "full" is exact if p is Gaussian, "isotropic" is for images.

    Args:
        grey: (batch, *positions, 1), or without the batch axis if all examples have the same.
        weights: of the channels of x, at least two. (0.299, 0.587, 0.114) is the luma of television.

    Raises:
        InputError: if the last axis of grey is not of size 1 or the weights are all 0 or not finite; at the call, if
            x has another number of channels than there are weights, or if grey does not fit x.
    """
    if jnp.ndim(grey) == 0 or jnp.shape(grey)[-1] != 1:
        raise InputError(f"grey has shape {jnp.shape(grey)}: give it a last axis of size 1 in place of the channels")
    basis = basis_along(weights)
    length = float(np.linalg.norm(np.asarray(weights, np.float64)))
    first = jnp.arange(len(basis)) == 0
    y = jnp.where(first, dtypes.as_float(grey) / length, 0.0)
    known = inpainting(y, jnp.broadcast_to(first, y.shape))
    return rotated(given(process, rotated(predict, basis), known, covariance), basis.T)


def rotated(predict: Predict, basis: Float[Array, "channels channels"]) -> Predict:
    """The Predict of u = x @ basis.T: the last axis of x in an orthonormal basis, whose rows are given.

    Observations, conditioning and samplers work in these coordinates as in all others. x = u @ basis goes back, and
    `rotated(..., basis.T)` takes a Predict back. A `log_var` belongs to channels and cannot be rotated: all channels of
    u get its mean over the channels of x.

    Raises:
        InputError: if the basis is not orthonormal; at the call, if it has not the size of the last axis or if the
            prediction is of bits.
    """
    if np.ndim(basis) != 2 or np.shape(basis)[0] != np.shape(basis)[1]:
        raise InputError(f"basis must be a square matrix, not of shape {np.shape(basis)}: one row for each channel")
    if not isinstance(basis, jax.core.Tracer):
        rows = np.asarray(basis, np.float64)
        if not np.allclose(np.matmul(rows, rows.T), np.eye(len(rows)), atol=1e-5):
            raise InputError("the rows of the basis must be orthonormal, basis @ basis.T = I: see basis_along")

    def turn(x: Array, matrix: Array) -> Array:
        x = dtypes.as_float(x)
        return matmul(x, jnp.asarray(matrix, x.dtype).T)

    def predict_rotated(u: Array, t: Array) -> Prediction:
        if u.shape[-1] != len(basis):
            raise InputError(f"samples have {u.shape[-1]} channels, the basis {len(basis)}: they must agree")
        prediction = predict(turn(u, basis.T), t)
        if prediction.kind == "logits":
            raise InputError("predictions of kind 'logits' are for bits and cannot be rotated: use a Gaussian process")
        log_var = prediction.log_var
        if log_var is not None:
            log_var = jnp.broadcast_to(log_var.mean(-1, keepdims=True), u.shape)
        return replace(prediction, value=turn(prediction.value, basis), log_var=log_var)

    return predict_rotated


def basis_along(direction: Sequence[float]) -> Float[Array, "channels channels"]:
    """An orthonormal basis, as rows. The first row is the direction divided by its length.

    Raises:
        InputError: if the direction is not a vector of at least two finite numbers, one of them not 0.
    """
    first = np.asarray(direction, np.float64)
    if first.ndim != 1 or first.size < 2 or not np.isfinite(first).all() or not first.any():
        raise InputError(f"direction={direction!r} must be a vector of at least two finite numbers, not all 0")
    columns, triangle = np.linalg.qr(np.column_stack([first, np.eye(first.size)]))
    columns[:, 0] *= np.sign(triangle[0, 0])
    return jnp.asarray(columns.T, float)
