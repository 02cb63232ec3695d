"""Progressive distillation: two steps of a teacher by hand, and on Gaussians, where they are linear in x_t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, predictions, processes, samplers, schedules
from diffjax.errors import InputError
from diffjax.losses.progressive import two_steps

S, KEY = 0.6, jax.random.key(0)
STRAIGHT, VP = schedules.straight(), schedules.vp()
TIMES = {  # the last step to the data, and the first from noise alone
    "straight": (STRAIGHT, np.array([0.0, 0.4, 0.5]), np.array([0.25, 0.5, 0.75]), np.array([0.5, 0.6, 1.0])),
    "vp": (VP, np.array([0.0, 0.2, 0.9]), np.array([0.05, 0.4, 0.95]), np.array([0.1, 0.6, 1.0])),
}


def levels(name, t):
    """alpha and sigma in numpy."""
    if name == "straight":
        return 1 - t, t
    rate = 0.1 * t + 0.5 * t**2 * 19.9
    return np.exp(-rate / 2), np.sqrt(-np.expm1(-rate))


@pytest.mark.parametrize("name", list(TIMES))
def test_one_step_of_the_target_ends_where_two_of_the_teacher_do(name):
    schedule, s, m, t = TIMES[name]
    process = processes.gaussian(schedule)
    x = np.random.default_rng(0).normal(size=(3, 2))
    teacher = predictions.v(lambda x, t: jnp.sin(2.0 * x) + t[:, None])

    def ddim(x, t, s, x0=None):
        (a, b), (a1, b1) = levels(name, t[:, None]), levels(name, s[:, None])
        v = np.sin(2 * x) + t[:, None]
        x0 = (a * x - b * v) / (a**2 + b**2) if x0 is None else x0
        return a1 * x0 + b1 * (x - a * x0) / b

    with jax.enable_x64(True):
        args = (jnp.asarray(a) for a in (s, m, t))
        found = np.asarray(jax.jit(two_steps, static_argnums=(0, 1))(process, teacher, jnp.asarray(x), *args))
    np.testing.assert_allclose(ddim(x, t, s, found), ddim(ddim(x, t, m), m, s), rtol=1e-7, atol=1e-9)
    # The formula of their appendix G.
    (a, b), (a1, b1) = levels(name, t[:, None]), levels(name, s[:, None])
    want = (ddim(ddim(x, t, m), m, s) - b1 / b * x) / (a1 - b1 / b * a)
    np.testing.assert_allclose(found, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(TIMES))
def test_the_loss_on_gaussians_is_a_closed_form(name):
    """The teacher's step multiplies x_t by ρ = (alpha_s alpha_t S² + sigma_s sigma_t)/(alpha_t² S² + sigma_t²)."""
    schedule, *times = TIMES[name]
    process = processes.gaussian(schedule)
    x0 = jnp.array([[0.5, -1.0], [1.5, 0.2], [-0.3, 0.8]])

    def linear(slope):
        def predict(x, t):
            alpha, sigma = (schedules.broadcast_to(a, x) for a in (schedule.alpha(t), schedule.sigma(t)))
            power = alpha**2 * S**2 + sigma**2
            return predictions.Prediction(slope * alpha * sigma * (1 - S**2) / power * x, "v")

        return predict

    def loss(student, teacher):
        return losses.progressive(process, linear(student), linear(teacher), KEY, x0, *map(jnp.asarray, times))

    found = jax.jit(loss)(0.7, 1.0)
    (a_s, b_s), (a_m, b_m), (a, b) = (levels(name, time[:, None]) for time in times)
    rho = (a_m * a * S**2 + b_m * b) / (a**2 * S**2 + b**2) * (a_s * a_m * S**2 + b_s * b_m) / (a_m**2 * S**2 + b_m**2)
    xt = a * np.float64(x0) + b * np.float64(jax.random.normal(KEY, x0.shape))
    target = (rho - b_s / b) / (a_s - b_s / b * a) * xt
    v = 0.7 * a * b * (1 - S**2) / (a**2 * S**2 + b**2) * xt
    said = (a * xt - b * v) / (a**2 + b**2)
    want = np.maximum(a**2 / b**2, 1)[:, 0] * ((target - said) ** 2).mean(1)
    np.testing.assert_allclose(found, want, rtol=2e-3)
    assert np.isfinite(found).all()
    assert (jax.jit(jax.jacrev(loss, argnums=1))(0.7, 1.0) == 0).all()  # the teacher does not learn


@pytest.mark.slow
def test_a_student_that_says_the_target_samples_as_the_teacher_in_half_the_steps():
    process, teacher = processes.gaussian(VP), predictions.v(lambda x, t: jnp.sin(2.0 * x) + t[:, None])

    def student(x, t):
        s, m = (jnp.maximum(t - length, 0.0) for length in (0.25, 0.125))
        return predictions.Prediction(two_steps(process, teacher, x, s, m, t), "x0")

    x1 = jax.random.normal(KEY, (5, 2))
    few, many = (jnp.linspace(1.0, 0.0, num) for num in (5, 9))
    found = samplers.denoise(samplers.ddim(process), student, KEY, x1, few)
    want = samplers.denoise(samplers.ddim(process), teacher, KEY, x1, many)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)


def test_times_in_the_wrong_order_are_said():
    predict, t = predictions.v(lambda x, t: x), np.array([0.2, 0.5])
    with pytest.raises(InputError, match="s, m and t must ascend"):
        losses.progressive(processes.gaussian(VP), predict, predict, KEY, jnp.ones((2, 1)), t, t, t + 0.1)
