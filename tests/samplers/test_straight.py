"""Samplers in the straight clock: one step worked by hand, and the marginals of the equation with any noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import predictions, processes, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

KEY = jax.random.key(0)


def estimate(x, t):
    """Of x_0: nonlinear, and of the time."""
    return np.sin(x) * (1 - t) + 0.3 * t


def predict(x, t):
    t = schedules.broadcast_to(t, x)
    return Prediction(jnp.sin(x) * (1 - t) + 0.3 * t, "x0")


def coefficients(name, t):
    """alpha and sigma in numpy."""
    rate = 0.1 * t + 9.95 * t * t
    return (1 - t, t) if name == "straight" else (np.exp(-0.5 * rate), np.sqrt(-np.expm1(-rate)))


def by_hand(name, sampler, x, t, s):
    """One step in numpy, the inverse of the clock by bisection."""

    def clock(t):
        alpha, sigma = coefficients(name, t)
        return sigma / (alpha + sigma)

    def time(c):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if clock(middle) < c else (low, middle)
        return high

    def rate(y, c):
        alpha, sigma = coefficients(name, time(c))
        x = (alpha + sigma) * y
        x0 = estimate(x, time(c))
        return (x - alpha * x0) / sigma - x0

    y, c, h = x / sum(coefficients(name, t)), clock(t), clock(s) - clock(t)
    if sampler == "midpoint":
        y = y + h * rate(y + h / 2 * rate(y, c), c + h / 2)
    elif s > 0:
        a = rate(y, c)
        b = rate(y + h / 2 * a, c + h / 2)
        d = rate(y + h / 2 * b, c + h / 2)
        y = y + h / 6 * (a + 2 * b + 2 * d + rate(y + h * d, c + h))
    else:
        a = rate(y, c)
        b = rate(y + h / 3 * a, c + h / 3)
        y = y + h / 4 * (a + 3 * rate(y + 2 * h / 3 * b, c + 2 * h / 3))
    return y * sum(coefficients(name, s))


@pytest.mark.parametrize("name", ["straight", "vp"])
def test_one_step_worked_by_hand(name):
    process = processes.gaussian(schedules.CONTINUOUS[name]())
    x = np.array([[0.9], [-1.7]])

    @jax.jit
    def stepped(t, s):
        return {
            sampler: samplers.SAMPLERS[sampler](process)
            .step(KEY, lambda x, t: predict(x, jnp.broadcast_to(t, 2)), samplers.State(jnp.asarray(x), x, 0.0), t, s)
            .x
            for sampler in ("midpoint", "rk4")
        }

    for t, s in ((0.8, 0.3), (0.6, 0.0), (1.0, 0.5)):
        for sampler, got in stepped(t, s).items():
            np.testing.assert_allclose(got, by_hand(name, sampler, x, t, s), rtol=2e-4, err_msg=f"{sampler} {t} {s}")


@pytest.mark.slow
def test_the_equation_has_the_marginals_of_the_flow_whatever_its_noise():
    """Mean and variance of x_t of Gaussian data on the way and at the end, for three coefficients and two schedules."""
    mean, variance, n = 0.7, 0.25, 20_000
    grid = jnp.append(jnp.linspace(1.0, 0.02, 100) ** 1.3, 0.0)
    for schedule in (schedules.straight(), schedules.vp()):
        process = processes.gaussian(schedule)

        def exact(x, t, schedule=schedule):
            alpha, sigma = (schedules.broadcast_to(a, x) for a in (schedule.alpha(t), schedule.sigma(t)))
            gain = alpha * variance / (alpha**2 * variance + sigma**2)
            return Prediction(mean + gain * (x - alpha * mean), "x0")

        @jax.jit
        def run(key, process=process, exact=exact):
            alpha, sigma = process.schedule.alpha(1.0), process.schedule.sigma(1.0)
            x1 = alpha * mean + jnp.sqrt(alpha**2 * variance + sigma**2) * jax.random.normal(key, (n, 1))
            kinds = {"little": 0.3, "much": 3.0, "a function": lambda c: 2.0 * jnp.sin(jnp.pi * c) ** 2}
            return {
                name: samplers.denoise(
                    samplers.interpolant_sde(process, noise), exact, key, x1, grid, lambda state: state.x
                )
                for name, noise in kinds.items()
            }

        for name, (x0, path) in run(KEY).items():
            for t, x in ((float(grid[61]), path[60]), (0.0, x0)):
                alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
                size = alpha**2 * variance + sigma**2
                x = np.float64(x)
                assert abs(x.mean() - alpha * mean) < 5 * np.sqrt(size / n) + 0.005, (name, t)
                assert abs(x.var() / size - 1) < 5 * np.sqrt(2 / n) + 0.05, (name, t, x.var() / size)


def test_without_noise_it_is_eulers_rule():
    process, x = processes.gaussian(schedules.straight()), jnp.array([[0.9], [-1.7]])
    times = jnp.array([1.0, 0.6, 0.5, 0.2, 0.0])
    velocity = predictions.velocity(lambda x, t: predict(x, t).value)
    got = samplers.denoise(samplers.interpolant_sde(process, 0.0), velocity, KEY, x, times)
    want = np.asarray(x, np.float64)
    for t, s in itertools.pairwise(times):
        want = want + float(s - t) * estimate(want, float(t))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    with pytest.raises(InputError, match=r"sampling\.diffusion must be a number of at least 0, not -1"):
        samplers.make("interpolant_sde", process, {"diffusion": -1})
