"""Simple Schrödinger bridge matching: Brownian bridges between the ends of an entropic coupling.

    q(x_t | x_0, x_1) = N((1 - t) x_0 + t x_1, σ² t (1 - t)),   (x_0, x_1) ~ π
    x_s ~ N(x_t + (t - s)/t (x̂_0 - x_t), σ² s (t - s)/t),       x̂_0 = E[x_0 | x_t],   s < t

A mixture of Brownian bridges over π has the same marginals p_t as the Markov process

    dx = (x_0 - x_t)/t (-dt) + σ dw, backwards in time, with E[x_0 | x_t] in place of x_0         (Peluchetti 2023)

The second line above is its step with a constant x̂_0. It is exact if x_0 is a function of x_t, and has no noise left
at s = 0. As t - s -> 0 it has these marginals for every π. It is the Schrödinger bridge, the process nearest to σ times
Brownian motion with the two given end distributions, if π is their entropic coupling with ε = 2σ²:
`couplings.sinkhorn(2 σ²)` (Tong et al. 2024, [SF]²M). Shi et al. (2023) find π by iterating the bridge.

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
    """The mean over the event of |x_0 - x̂_0|² at times t in (0, 1]. It is t² times the squared error of the drift.

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
    """A stepper from the source to data. `samplers.denoise` starts from points of the source, `sample` from N(0, I).

    Raises:
        InputError: if sigma is not positive and finite. Its step raises it if the prediction's kind is not "x0".
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
