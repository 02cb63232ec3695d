"""Guidance of one model by another. D = E[x_0 | x_t] is the estimate of the first model, D' that of the second.

    D_w = D + (w - 1)(D - D')

For scores this is s' + w (s - s'). The same formula holds for eps, v and the velocity.

    classifier-free   D is of p(x | y) and D' of p(x). w = 0 is the unconditional model, w = 1 the conditional one.
                      Papers that write (1 + w) s - w s' mean w + 1 here            (Ho & Salimans 2022, eq. 6)
    autoguidance      D is of a good model and D' of a worse one of the same data   (Karras et al. 2024b)

The samples do not come from p(x) p(y | x)^w. Unless w is 0 or 1, the guided field is not the score of a noised density.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert
from diffjax.processes import Gaussian
from diffjax.schedules import broadcast_to

TINY = 1e-30  # in place of a deviation of 0


def classifier_free(
    conditional: Predict,
    unconditional: Predict,
    process: Gaussian,
    scale: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    rescale: ArrayLike = 0.0,
    parallel: ArrayLike = 1.0,
    limit: ArrayLike = math.inf,
) -> Predict:
    """The Predict of D_w. Both networks are evaluated at every time. All numbers may be traced.

    Args:
        conditional: of p(x | y), or the good model.
        unconditional: of p(x), or the worse model.
        scale: w, of shape () or (batch,). 1 is `conditional` and 0 `unconditional`.
        interval: the first and the last time at which the scale is w. Elsewhere it is 1 (Kynkäänniemi et al. 2024).
        rescale: φ. D_w becomes D_w (φ std(D)/std(D_w) + 1 - φ). The deviations are over one example (Lin et al. 2024,
            section 3.4).
        parallel: the factor of the part of D - D' that is parallel to D. 0 is adaptive projected guidance, which
            saturates less (Sadat et al. 2025). Its momentum is missing, because a Predict has no state.
        limit: the largest norm of D - D' in an example, called r by Sadat et al.

    Returns:
        The Predict, with the log-variance of `conditional`. If both have the same kind, and nothing is rescaled,
        projected or limited, that is its kind. Otherwise its kind is x0.

    Raises:
        InputError: if the interval is not within [0, 1], the limit not positive, or the process not Gaussian.
    """
    if not isinstance(process, Gaussian):
        raise InputError(f"guidance by a second model is for Gaussian processes, not for {type(process).__name__}")
    low, high = interval
    traced = isinstance(low, Tracer) or isinstance(high, Tracer)
    if not traced and not 0 <= np.asarray(low) <= np.asarray(high) <= 1:
        raise InputError(f"interval={interval} must be two times, the first not above the second, within [0, 1]")
    if not isinstance(limit, Tracer) and not np.asarray(limit) > 0:
        raise InputError(f"limit={limit} must be positive: the largest norm of the difference of the two estimates")
    linear = _is(rescale, 0.0) and _is(parallel, 1.0) and _is(limit, math.inf)

    def predict(xt: Array, t: Array) -> Prediction:
        xt = as_float(xt)
        first, second = conditional(xt, t), unconditional(xt, t)
        kind = first.kind if linear and first.kind == second.kind else "x0"
        d, other = (convert(prediction, kind, process, xt, t) for prediction in (first, second))
        extra = broadcast_to(jnp.where((low <= t) & (t <= high), scale, 1.0) - 1.0, d)
        if linear:
            return Prediction(d + extra * (d - other), kind, first.log_var)
        axes = tuple(range(1, d.ndim))
        moved = d - other
        norm = jnp.sqrt((moved**2).sum(axes, keepdims=True))
        moved = moved * jnp.minimum(1.0, jnp.asarray(limit, d.dtype) / jnp.maximum(norm, TINY))
        along = (moved * d).sum(axes, keepdims=True) / jnp.maximum((d * d).sum(axes, keepdims=True), TINY) * d
        guided = d + extra * (moved - (1 - jnp.asarray(parallel, d.dtype)) * along)
        ratio = d.std(axes, keepdims=True) / jnp.maximum(guided.std(axes, keepdims=True), TINY)
        phi = jnp.asarray(rescale, d.dtype)
        return Prediction(guided * (phi * ratio + 1 - phi), kind, first.log_var)

    return predict


def _is(value: ArrayLike, number: float) -> bool:
    return isinstance(value, int | float) and value == number
