"""Schrödinger bridge matching in its simple form: Brownian bridges between the ends of an entropic coupling.

    q(x_t | x_0, x_1) = N((1 - t) x_0 + t x_1, σ² t (1 - t)),   (x_0, x_1) ~ π
    x_s ~ N(x_t + (t - s)/t (x̂_0 - x_t), σ² s (t - s)/t),       x̂_0 = E[x_0 | x_t],   s < t

A mixture of Brownian bridges over π is turned into a Markov process of the same marginals p_t by

    dx = (x_0 - x_t)/t (-dt) + σ dw, downwards in time, with E[x_0 | x_t] in place of x_0         (Peluchetti 2023)

The second line above is the step of this process with x̂_0 held fixed. It is exact if x_0 is a function of x_t, and at
s = 0 no noise is left. As t - s -> 0 it has the marginals p_t, for every π. The Schrödinger bridge is the process
nearest to σ times Brownian motion among those with the two given distributions at the ends. The process above is this
bridge if π is the entropic coupling of the two with ε = 2σ²: `couplings.sinkhorn(2 σ²)` (Tong et al. 2024, [SF]²M; Shi
et al. 2023 find π by iterating the bridge itself).

The network learns x̂_0, a Predict of kind "x0". Bridges are interpolants: `interpolants.interpolant(σ/√2)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax.errors import InputError
from diffjax.interpolants.linear import PROCESS, event_mean, interpolant, pairs, value
from diffjax.predictions import Predict
from diffjax.randomness import Keys, normal
from diffjax.samplers import driver
from diffjax.schedules import broadcast_to, sqrt


def bridge_matching(
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    x1: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    sigma: float,
) -> Float[Array, " batch"]:
    """Mean over the event of |x_0 - x̂_0|² at times t in (0, 1]. It is t² times the squared error of the drift.

    Args:
        x0, x1: pairs of data and source, from the coupling π.
        sigma: σ, in the units of the data.

    Raises:
        InputError: if sigma is not positive and finite, x0 and x1 differ in shape, or the prediction is of another kind
            than "x0".
    """
    check_sigma(sigma)
    x0, x1, t = pairs(x0, x1, t)
    xt = interpolant(sigma / np.sqrt(2.0)).at(x0, x1, normal(key, x0.shape, x0.dtype), t)
    return event_mean((x0 - value(predict, "x0", xt, t)) ** 2)


def drift(predict: Predict, x: Float[Array, "batch *event"], t: Float[Array, ""]) -> Float[Array, "batch *event"]:
    """(x̂_0 - x)/t, the drift for decreasing time."""
    return (value(predict, "x0", x, jnp.broadcast_to(t, x.shape[:1])) - x) / broadcast_to(t, x)


def bridge(sigma: float) -> driver.Stepper:
    """The stepper of a bridge. Use `samplers.denoise` from points of the source: `samplers.sample` starts from N(0, I).

    Raises:
        InputError: if sigma is not positive and finite; from its step, if the prediction is of another kind than "x0".
    """
    check_sigma(sigma)

    def step(key: driver.Noise, predict: Predict, state: driver.State, t: Array, s: Array) -> driver.State:
        x = state.x
        x0 = value(predict, "x0", x, jnp.broadcast_to(t, x.shape[:1]))
        part = broadcast_to((t - s) / t, x)
        deviation = sigma * sqrt(broadcast_to(s, x) * part)
        moved = x + part * (x0 - x) + deviation * driver.normal(key, x, t, s)
        return driver.State(moved, x0, PROCESS.schedule.log_snr(t))

    return driver.Stepper(PROCESS.prior, driver.start, step)


def check_sigma(sigma: float) -> None:
    """Raises `InputError` unless sigma is positive and finite."""
    if not isinstance(sigma, jax.core.Tracer) and not 0 < sigma < np.inf:
        raise InputError(f"sigma={sigma} of a bridge must be positive and finite, in the data's units")
