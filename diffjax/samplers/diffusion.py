"""Samplers of the chain itself. With (x_0, eps) the pair that the prediction implies at (x_t, t):

ancestral  x_s ~ p(x_s | x_t)                                                  (Ho et al. 2020, algorithm 2)
ddim       x_s = alpha_s x_0 + √(sigma_s² - η²β̃) eps + η√β̃ z                  (Song et al. 2021, eq. 12)

consistency  x_s ~ q(x_s | f(x_t, t)), f the end of the path through x_t, no mean  (Song et al. 2023, algorithm 1)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import schedules
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.predictions import Predict, convert, pair
from diffjax.processes import Gaussian, Process, Variance
from diffjax.samplers.driver import Noise, State, Stepper, at, normal, single, start, starts
from diffjax.schedules import broadcast_to


def ancestral(process: Process, variance: Variance = "posterior") -> Stepper:
    """Draws from the reverse kernel; a Gaussian step to s = 0 takes its mean, as in algorithm 2 of Ho et al. 2020."""

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        prediction = predict(state.x, t)
        kernel = process.reverse(prediction, state.x, s, t, variance)
        x0 = convert(prediction, "x0", process, state.x, t)
        if not isinstance(kernel, Normal):
            return State(kernel.sample(single("bits or classes", key)), x0, process.schedule.log_snr(t))
        # The mean of a Normal is an image without the last step's noise; the mean of a bit is not a bit. If the last
        # step is also the first, its variance is 0 and the gradient of the root is infinite: it is not used.
        deviation = jnp.sqrt(jnp.where(s == 0, 1.0, kernel.variance))
        noisy = kernel.mean + deviation * normal(key, kernel.mean, t, s)
        return State(jnp.where(s == 0, kernel.mean, noisy), x0, process.schedule.log_snr(t))

    return Stepper(process.prior, starts(process), step)


def ddim(process: Gaussian, eta: ArrayLike = 0.0) -> Stepper:
    """Non-Markovian sampler with the same marginals: deterministic at eta = 0, `ancestral("posterior")` at eta = 1."""
    # numpy, because jnp would trace the comparison of even a concrete eta under jit
    deterministic = not isinstance(eta, jax.core.Tracer) and bool((np.asarray(eta) == 0).all())

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0, eps = pair(predict(state.x, t), schedule, state.x, t)
        alpha_s, sigma_s = at(schedule, s, state.x)
        if deterministic:
            return State(alpha_s * x0 + sigma_s * eps, x0, schedule.log_snr(t))
        posterior = process.posterior(x0, state.x, s, t).variance
        scale = broadcast_to(eta, state.x)
        kept = jnp.maximum(sigma_s**2 - scale**2 * posterior, 0.0)
        noise = scale * schedules.sqrt(posterior) * normal(key, state.x, t, s)
        return State(alpha_s * x0 + schedules.sqrt(kept) * eps + noise, x0, schedule.log_snr(t))

    return Stepper(process.prior, start, step)


def consistency(process: Gaussian, t_min: ArrayLike = 0.0) -> Stepper:
    """Multistep sampling of a consistency model: estimate the end of x_t's path, then add noise up to the next time.

    One step from 1 to 0 is the model itself. More steps draw from the same law where the model is exact.

    Args:
        t_min: the time of the estimate, that of `losses.consistency_function`. A step to s = 0 ends in the estimate.

    Raises:
        InputError: if t_min is not in [0, 1).
    """
    if not isinstance(t_min, jax.core.Tracer) and not 0 <= np.asarray(t_min) < 1:
        raise InputError(f"t_min must be a time in [0, 1), that of the model's estimate, not {t_min}")

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        x0 = convert(predict(state.x, t), "x0", process, state.x, t)
        first = jnp.asarray(t_min, s.dtype)
        q = process.transition(x0, first, jnp.maximum(s, first))
        z = jax.random.normal(single("consistency", key), x0.shape, x0.dtype)
        x = jnp.where(s == 0, x0, q.mean + schedules.sqrt(q.variance) * z)
        return State(x, x0, process.schedule.log_snr(t))

    return Stepper(process.prior, start, step)
