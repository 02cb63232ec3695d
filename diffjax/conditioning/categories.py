"""Guidance of categories. With logits of p̂(x_0 | x_t, y) and of p̂(x_0 | x_t), at every place

    p_w ∝ p̂(x_0 | x_t, y)^w p̂(x_0 | x_t)^(1 - w)                       (Nisonoff et al. 2025; Schiff et al. 2025)

w = 0 is the unconditional model and w = 1 the conditional one, as in `classifier_free`. Samples are of no
p(x) p(y | x)^w: the product of places is guided, not that of whole arrays.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction
from diffjax.schedules import broadcast_to


def classifier_free_categories(conditional: Predict, unconditional: Predict, scale: ArrayLike) -> Predict:
    """The Predict of p_w. A class that either model holds impossible stays impossible.

    Args:
        scale: w, of shape () or (batch,).

    Raises:
        InputError: if a prediction is not of kind "logits".
    """

    def predict(xt: Array, t: Array) -> Prediction:
        both = conditional(xt, t), unconditional(xt, t)
        for one in both:
            if one.kind != "logits":
                raise InputError(f"guidance of categories mixes predictions of kind 'logits', not {one.kind!r}")
        c, u = (jax.nn.log_softmax(as_float(one.value), axis=-1) for one in both)
        possible = jnp.isfinite(c) & jnp.isfinite(u)
        w = broadcast_to(scale, c)
        mixed = w * jnp.where(possible, c, 0.0) + (1 - w) * jnp.where(possible, u, 0.0)
        return Prediction(jnp.where(possible, mixed, -jnp.inf), "logits")

    return predict
