"""Straightness and the flow's ends in closed form on Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from diffjax import predictions, processes, samplers, schedules
from diffjax.errors import InputError
from diffjax.interpolants import reflow

S = 0.5  # the data are N(0, S²), so that x_t = √(alpha² S² + sigma²) x_1 / √(alpha(1)² S² + sigma(1)²)
X1 = jnp.array([[2.0, 0.0], [1.0, -1.0], [0.0, 0.0]])


def scale(schedule, t):
    return np.sqrt(np.float64(schedule.alpha(t)) ** 2 * S**2 + np.float64(schedule.sigma(t)) ** 2)


def exact(schedule):
    def eps(x, t):
        alpha, sigma = (a(t)[:, None] for a in (schedule.alpha, schedule.sigma))
        return sigma * x / (alpha**2 * S**2 + sigma**2)

    def x0(x, t):
        alpha, sigma = (a(t)[:, None] for a in (schedule.alpha, schedule.sigma))
        return alpha * S**2 * x / (alpha**2 * S**2 + sigma**2)

    return predictions.x0(x0) if isinstance(schedule, schedules.Straight) else predictions.eps(eps)


@pytest.mark.parametrize("name", ["straight", pytest.param("vp", marks=pytest.mark.slow)])
def test_straightness_of_gaussian_data(name):
    """∫ ẋ² dt - (x_1 - x_0)², the mean over two numbers, with x_t a known multiple of x_1."""
    schedule = {"straight": schedules.straight, "vp": schedules.vp}[name]()
    process, predict = processes.gaussian(schedule), exact(schedule)
    t = np.linspace(0, 1, 2001)
    path = scale(schedule, t) / scale(schedule, 1.0)
    want = np.sum(np.diff(path) ** 2) * 2000 - (path[-1] - path[0]) ** 2
    found, ends = jax.jit(
        lambda x: (reflow.straightness(process, predict, x, 200), reflow.flow_ends(process, predict, x, 200))
    )(X1)
    np.testing.assert_allclose(found, want * np.array([2.0, 1.0, 0.0]), rtol=0.02, atol=1e-8)
    np.testing.assert_allclose(ends, path[0] * X1, atol=0.02)
    if name == "straight":
        squared_rate = lambda t: (t - (1 - t) * S**2) ** 2 / ((1 - t) ** 2 * S**2 + t**2)  # noqa: E731
        closed = scipy.integrate.quad(squared_rate, 0, 1)[0] - (1 - S) ** 2
        np.testing.assert_allclose(want, closed, rtol=1e-4)


def test_a_straight_flow_is_straight_and_one_step_is_exact():
    process = processes.gaussian(schedules.straight())
    # From x_1 to x_1/2 + 3 on a line: u = x_1/2 - 3 with x_t = x_1 (1 + t)/2 + 3 (1 - t)
    predict = predictions.velocity(lambda x, t: (x - 3 * (1 - t[:, None])) / (1 + t[:, None]) - 3)
    np.testing.assert_allclose(reflow.straightness(process, predict, X1, 7), 0.0, atol=1e-8)
    for stepper in (samplers.euler(process), None):
        np.testing.assert_allclose(reflow.flow_ends(process, predict, X1, 1, stepper), X1 / 2 + 3, rtol=1e-5)
    with pytest.raises(InputError, match="num_steps"):
        reflow.straightness(process, predict, X1, 0)
