"""Stochastic interpolants: flows and diffusions between any two distributions (Albergo et al. 2023; Liu et al. 2023).

    x_t = (1 - t) x_0 + t x_1 + γ(t) z,   γ² = 2 a² t (1 - t),   z ~ N(0, I)

x_0 is data at t = 0 and x_1 the source at t = 1, as everywhere in the library. Any coupling pairs them (`couplings`).
a = 0 is the rectified flow between two sets. There are two regressions on x_t:

    velocity   b(x, t) = E[x_1 - x_0 + γ' z | x_t = x],   with dp_t/dt = -∇·(b p_t)
    noise      η(x, t) = E[z | x_t = x],   and the score ∇log p_t = -η/γ

The ordinary differential equation dx/dt = b has the marginals p_t. For every ε(t) >= 0, the following steps backwards
in time have them, too:

    x_s = x_t - (b + ε η/γ) (t - s) + √(2ε (t - s)) w,   w ~ N(0, I), s < t, t - s -> 0     (their section 2.3)

To go from data to the source, swap the two sets. b is a Predict of kind "velocity", η one of kind "eps".

The deterministic samplers work here, because they use dx/dt alone. `samplers.denoise` with `euler(PROCESS)` or
`heun(PROCESS)` starts from points of the source, as `sde.transport` does. Samplers that use the score of Gaussian noise
(`ancestral`, `euler_maruyama`), bounds and likelihoods are wrong for a source other than N(0, I). Use `stochastic`
instead.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import processes, schedules
from diffjax.dtypes import alike, as_float
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction
from diffjax.randomness import Keys, normal
from diffjax.samplers import driver
from diffjax.schedules import broadcast_to

# For the times alone: x_t moves from x_0 to x_1 as on straight lines from data to noise.
PROCESS = processes.gaussian(schedules.straight())


class Interpolant(NamedTuple):
    """x_t = (1 - t) x_0 + t x_1 + γ(t) z. `scale` is a."""

    scale: Float[Array, ""] | float

    def gamma(self, t: ArrayLike) -> Array:
        """γ(t), elementwise."""
        t = as_float(t)
        return jnp.asarray(self.scale, t.dtype) * schedules.sqrt(2.0 * t * (1.0 - t))

    def gamma_rate(self, t: ArrayLike) -> Array:
        """γ'(t), elementwise. It is 0 at the ends, where it would be infinite and multiply noise of size 0."""
        t = as_float(t)
        root = jnp.sqrt(jnp.where((t > 0) & (t < 1), 2.0 * t * (1.0 - t), jnp.inf))
        return jnp.asarray(self.scale, t.dtype) * (1.0 - 2.0 * t) / root

    def at(self, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"], z: Array, t: ArrayLike) -> Array:
        """x_t. The shape of t is () or that of the leading axes of x."""
        x0, x1, z = alike(x0, x1, z)
        t = jnp.asarray(t, x0.dtype)
        weight = broadcast_to(t, x0)
        return (1.0 - weight) * x0 + weight * x1 + broadcast_to(self.gamma(t), x0) * z


def interpolant(scale: float = 0.0) -> Interpolant:
    """The interpolant with γ² = 2 scale² t (1 - t). With scale 0 it has no noise.

    Raises:
        InputError: if scale is negative or not finite.
    """
    if not isinstance(scale, jax.core.Tracer) and not (np.asarray(scale) >= 0 and np.isfinite(scale)):
        raise InputError(f"scale={scale} of the interpolant's noise must be at least 0, in the data's units")
    return Interpolant(scale)


def velocity_loss(
    between: Interpolant,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    x1: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """The mean over the event of |b - (x_1 - x_0 + γ' z)|² - |γ' z|². It is least at b, and finite at the ends.

    Each pair is used with z and with -z. |γ' z|² does not depend on b and has no finite mean over t. The loss may be
    negative. With scale 0 it is the squared error and takes one evaluation.

    Raises:
        InputError: if x0 and x1 differ in shape, or the prediction is of another kind than "velocity".
    """
    x0, x1, t = pairs(x0, x1, t)
    slope = x1 - x0
    if _known_zero(between.scale):
        return event_mean((value(predict, "velocity", between.at(x0, x1, slope, t), t) - slope) ** 2)
    z = normal(key, x0.shape, x0.dtype)
    rate = broadcast_to(between.gamma_rate(t), x0)

    def half(z: Array) -> Array:
        error = value(predict, "velocity", between.at(x0, x1, z, t), t) - slope
        return error**2 - 2.0 * rate * z * error

    return event_mean(0.5 * (half(z) + half(-z)))


def noise_loss(
    between: Interpolant,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    x1: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """The mean over the event of |η - z|².

    Raises:
        InputError: as `velocity_loss`, with the kind "eps". Also if the interpolant has no noise.
    """
    _require_noise(between, "noise_loss")
    x0, x1, t = pairs(x0, x1, t)
    z = normal(key, x0.shape, x0.dtype)
    return event_mean((value(predict, "eps", between.at(x0, x1, z, t), t) - z) ** 2)


def stochastic(
    between: Interpolant, noise: Predict, epsilon: Callable[[Array], Array], prior: Callable | None = None
) -> driver.Stepper:
    """The stochastic equation by Euler and Maruyama's rule, of weak order 1. The sampler's Predict is the velocity.

    The first step from t = 1 and the last step to s = 0 are those of the ordinary equation, because γ = 0 there and η/γ
    is unknown.

    Args:
        noise: η, of kind "eps".
        epsilon: ε(t) >= 0. Every choice has the same marginals. γ² is the natural scale: c γ² keeps ε η/γ bounded.
        prior: shape -> the distribution of x_1, for `samplers.sample`. The default is N(0, I). `samplers.denoise` does
            not need it, because it starts from points of the source.

    Raises:
        InputError: if the interpolant has no noise. Its step raises it if a prediction has another kind.
    """
    _require_noise(between, "stochastic")

    def step(key: driver.Noise, predict: Predict, state: driver.State, t: Array, s: Array) -> driver.State:
        x = state.x
        b, eta = value(predict, "velocity", x, t), value(noise, "eps", x, jnp.broadcast_to(t, x.shape[:1]))
        inner = (t < 1) & (s > 0)
        rate = broadcast_to(jnp.where(inner, epsilon(t), 0.0), x)
        gamma = broadcast_to(jnp.where(inner, between.gamma(t), 1.0), x)
        length = broadcast_to(t - s, x)
        moved = x - (b + rate * eta / gamma) * length
        moved = moved + schedules.sqrt(2.0 * rate * length) * driver.normal(key, x, t, s)
        return driver.State(moved, x - broadcast_to(t, x) * b, PROCESS.schedule.log_snr(t))

    return driver.Stepper(prior or PROCESS.prior, driver.start, step)


def value(predict: Predict, kind: str, x: Array, t: Array) -> Array:
    prediction: Prediction = predict(x, t)
    if prediction.kind != kind:
        raise InputError(f"an interpolant needs a prediction of kind {kind!r} here, not {prediction.kind!r}")
    return jnp.asarray(prediction.value, x.dtype)


def pairs(x0: Array, x1: Array, t: Array) -> tuple[Array, Array, Array]:
    if jnp.shape(x0) != jnp.shape(x1):
        raise InputError(f"x0 and x1 are pairs and must be of one shape, not {jnp.shape(x0)} and {jnp.shape(x1)}")
    x0, x1 = alike(x0, x1)
    return x0, x1, jnp.asarray(t, x0.dtype)


def _require_noise(between: Interpolant, name: str) -> None:
    if _known_zero(between.scale):
        raise InputError(f"{name} needs an interpolant with noise: interpolant(scale) with scale > 0")


def _known_zero(scale: ArrayLike) -> bool:
    return not isinstance(scale, jax.core.Tracer) and float(np.asarray(scale)) == 0.0


def event_mean(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).mean(1)
