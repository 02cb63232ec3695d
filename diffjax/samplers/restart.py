"""Restart sampling (Xu et al. 2023): at the lower end of an interval of noise levels, go back to the upper end, and
repeat.

Noise contracts the errors made above the interval, and an accurate solver makes few new ones within it.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper, normal, single
from diffjax.samplers.ode import heun
from diffjax.schedules import sqrt, time_of


def restart(
    process: Gaussian,
    restart_levels: tuple[float, float] = (0.05, 0.3),
    restarts: int = 3,
    restart_steps: int = 5,
) -> Stepper:
    """Heun's steps. The restarts follow the step that arrives at the lower level or below it.

    A restart adds noise up to the higher level and takes Heun's steps down to the same time again.

    Args:
        restart_levels: noise is added from the first ς to the second; (0.05, 0.3) is the paper's innermost interval for
            CIFAR-10.
        restarts: the number of restarts.
        restart_steps: the number of Heun's steps from the higher level down, equidistant in log ς.

    Raises:
        InputError: on levels that are not two positive ones in ascending order, or numbers that are not positive.
    """
    low, high = restart_levels
    if not 0 < low < high < math.inf:
        raise InputError(f"restart_levels={restart_levels} must be two positive noise levels, in ascending order")
    check_num_steps("restarts", restarts)
    check_num_steps("restart_steps", restart_steps)
    stepper, steps = heun(process), int(restart_steps)
    crossing, top = (-2.0 * math.log(level) for level in (low, high))

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        key = single("restart", key)
        schedule = process.schedule
        after = stepper.step(key, predict, state, t, s)
        # Not in the step to s = 0, after which a sampler ends.
        crossed = (schedule.log_snr(t) < crossing) & (schedule.log_snr(s) >= crossing) & (s > 0)
        upper = time_of(schedule, jnp.asarray(top)).astype(t.dtype)
        log_snr_s = jnp.where(s > 0, schedule.log_snr(s), crossing)
        part = jnp.arange(steps + 1, dtype=t.dtype) / steps
        between = time_of(schedule, top + part * (log_snr_s - top)).astype(t.dtype)
        times = between.at[0].set(upper).at[-1].set(s)

        def again(state: State, key: Array) -> tuple[State, None]:
            q = process.transition(state.x, s, upper)
            x = q.mean + sqrt(q.variance) * normal(key, state.x, upper, s)

            def down(state: State, pair: tuple[Array, Array]) -> tuple[State, None]:
                return stepper.step(key, predict, state, *pair), None

            return jax.lax.scan(down, state._replace(x=x), (times[:-1], times[1:]))

        def repeated() -> State:
            return jax.lax.scan(again, after, jax.random.split(key, int(restarts)))[0]

        return jax.lax.cond(crossed & (upper > s), repeated, lambda: after)

    return stepper._replace(step=step)
