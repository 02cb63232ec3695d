"""Samplers in a time c in which every schedule is the straight one.

With c = sigma/(alpha + sigma) and y = x/(alpha + sigma), x = alpha x_0 + sigma eps becomes y = (1 - c) x_0 + c eps. The
probability flow is then

    dy/dc = eps - x_0

with (x_0, eps) the predicted pair. It is finite at c = 1, where alpha = 0. On `schedules.straight`, c is t and y is x.
The score of y is -eps/c, so the equation

    dy = [eps - x_0 + ½ (g²/c) eps] dc + g dw̄,   backwards in c,

has the marginals of the flow for any g(c) (Albergo et al. 2023, section 2.3; Ma et al. 2024).

midpoint         the flow; second order, two evaluations a step
rk4              the flow; fourth order, four evaluations a step, three in the step to s = 0
interpolant_sde  the equation by the Euler-Maruyama rule; weak order 1, one evaluation a step

At c = 0 an estimate of x_0 says nothing about eps, so nothing is evaluated there. The last step of `rk4` is therefore
Heun's rule of third order. Its error in one step is of the same order as that of all other steps together. Euler's and
Heun's rules are in `ode`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax.errors import InputError
from diffjax.predictions import Predict, pair
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper, at, normal, start
from diffjax.schedules import Schedule, log, time_of

Rate = Callable[[Array, Array], Array]  # (y, c) -> dy/dc
Rule = Callable[[Rate, Array, Array, Array, Array], Array]  # (rate, y, rate at y, c, h) -> y at c + h


def midpoint(process: Gaussian) -> Stepper:
    """The explicit midpoint rule: of second order for smooth densities, two evaluations a step."""

    def rule(rate: Rate, y: Array, first: Array, c: Array, h: Array) -> Array:
        return y + h * rate(y + 0.5 * h * first, c + 0.5 * h)

    return _stepper(process, rule, rule)


def rk4(process: Gaussian) -> Stepper:
    """The classical rule of Runge and Kutta: of fourth order for smooth densities, four evaluations a step."""

    def rule(rate: Rate, y: Array, first: Array, c: Array, h: Array) -> Array:
        second = rate(y + 0.5 * h * first, c + 0.5 * h)
        third = rate(y + 0.5 * h * second, c + 0.5 * h)
        fourth = rate(y + h * third, c + h)
        return y + h / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)

    def last(rate: Rate, y: Array, first: Array, c: Array, h: Array) -> Array:
        second = rate(y + h / 3.0 * first, c + h / 3.0)
        third = rate(y + 2.0 * h / 3.0 * second, c + 2.0 * h / 3.0)
        return y + 0.25 * h * (first + 3.0 * third)

    return _stepper(process, rule, last)


def interpolant_sde(process: Gaussian, diffusion: ArrayLike | Callable[[Array], Array] = 1.0) -> Stepper:
    """Samples with the marginals of the flow and a chosen amount of noise. The step to s = 0 goes to x̂_0.

    Args:
        diffusion: the function c -> g²(c), or a number k ≥ 0 for g² = k c, which keeps the drift finite at c = 0. k = 0
            is Euler's rule for the flow.

    Raises:
        InputError: if k is negative.
    """
    if not callable(diffusion) and not isinstance(diffusion, jax.core.Tracer) and not np.asarray(diffusion) >= 0:
        raise InputError(f"sampling.diffusion must be a number of at least 0, not {diffusion}")
    schedule = process.schedule

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        x = state.x
        x0, eps = pair(predict(x, t), schedule, x, t)
        (size_t, c_t), (size_s, c_s) = _size_and_clock(schedule, t, x), _size_and_clock(schedule, s, x)
        squared = jnp.asarray(diffusion(c_t) if callable(diffusion) else diffusion * c_t, x.dtype)
        length = c_t - c_s
        mean = x / size_t - (eps - x0 + 0.5 * squared / c_t * eps) * length
        y = mean + jnp.sqrt(squared * length) * normal(key, x, t, s)
        return State(jnp.where(s == 0, x0, size_s * y), x0, schedule.log_snr(t))

    return Stepper(process.prior, start, step)


def _stepper(process: Gaussian, rule: Rule, last: Rule) -> Stepper:
    """A stepper made of a rule, and of a rule for the last step that evaluates nothing at s = 0."""
    schedule = process.schedule

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        x = state.x

        def rate(y: Array, c: Array) -> Array:
            time = _time(schedule, c).astype(t.dtype)
            alpha, sigma = at(schedule, time, x)
            point = (alpha + sigma) * y
            x0, eps = pair(predict(point, time), schedule, point, time)
            return eps - x0

        x0, eps = pair(predict(x, t), schedule, x, t)
        (size_t, c_t), (size_s, c_s) = _size_and_clock(schedule, t, x), _size_and_clock(schedule, s, x)
        item = x / size_t, eps - x0, c_t, c_s - c_t
        y = jax.lax.cond(s > 0, lambda: rule(rate, *item), lambda: last(rate, *item))
        return State(size_s * y, x0, schedule.log_snr(t))

    return Stepper(process.prior, start, step)


def _size_and_clock(schedule: Schedule, t: Array, x: Array) -> tuple[Array, Array]:
    alpha, sigma = at(schedule, t, x)
    return alpha + sigma, (sigma / (alpha + sigma)).reshape(())


def _time(schedule: Schedule, c: Array) -> Array:
    """The time t at which sigma/(alpha + sigma) is c."""
    return time_of(schedule, 2.0 * (log(1.0 - c) - log(c)))
