"""Churn: before every step noise is raised from level ς to (1 + γ) ς (Karras et al. 2022, algorithm 2).

The step then removes this noise together with the errors of earlier steps. Levels are ς = sigma/alpha, and the noise is
that of q(x_t | x_s), for any schedule.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from diffjax.errors import InputError
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper, normal, single
from diffjax.schedules import sqrt, time_of

MOST = math.sqrt(2.0) - 1.0  # the largest γ: it doubles the variance of the noise


def churned(
    process: Gaussian,
    stepper: Stepper,
    gamma: ArrayLike,
    noise: ArrayLike = 1.0,
    levels: tuple[ArrayLike, ArrayLike] = (0.0, math.inf),
) -> Stepper:
    """The stepper, started from noise raised by 1 + γ where ς is within `levels`, but never above the noise at t = 1.

    Args:
        stepper: any stepper that reads only x of the state.
        gamma: γ, S_churn/n in the paper and at most √2 - 1.
        noise: S_noise, the standard deviation of the added noise in units of the process's own.

    Raises:
        InputError: on γ below 0, or levels that are not two in ascending order.
    """
    low, high = levels
    if not (_traced(gamma) or np.asarray(gamma) >= 0):
        raise InputError(f"gamma must be at least 0, not {gamma}")
    if not (_traced(low, high) or 0 <= np.asarray(low) < np.asarray(high)):
        raise InputError(f"levels={levels} must be two noise levels, the first below the second")

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        lift_key, step_key = jax.random.split(single("churn", key))
        log_snr = process.schedule.log_snr(t)
        level = jnp.exp(-0.5 * log_snr)
        raised = time_of(process.schedule, log_snr - 2.0 * jnp.log1p(gamma)).astype(t.dtype)
        within = (low <= level) & (level <= high) & (raised > t) & jnp.isfinite(level)

        def lifted() -> State:
            q = process.transition(state.x, t, raised)
            x = q.mean + jnp.asarray(noise, q.mean.dtype) * sqrt(q.variance) * normal(lift_key, state.x, raised, t)
            return stepper.step(step_key, predict, state._replace(x=x), raised, s)

        return jax.lax.cond(within, lifted, lambda: stepper.step(step_key, predict, state, t, s))

    return stepper._replace(step=step)


def with_churn(
    process: Gaussian,
    stepper: Stepper,
    churn: ArrayLike,
    steps: int,
    churn_noise: ArrayLike,
    churn_levels: tuple[ArrayLike, ArrayLike],
) -> Stepper:
    """`churned` with γ = min(churn/steps, √2 - 1); churn is the paper's S_churn. At churn 0, the stepper itself."""
    if not _traced(churn) and np.asarray(churn) == 0:
        return stepper
    return churned(process, stepper, jnp.minimum(jnp.asarray(churn) / steps, MOST), churn_noise, churn_levels)


def _traced(*values: ArrayLike) -> bool:
    return any(isinstance(value, Tracer) for value in values)
