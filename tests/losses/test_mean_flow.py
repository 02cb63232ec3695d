"""MeanFlow on Gaussians, whose mean velocity is known: x_r = x_t phi(r)/phi(t), phi(t) = √(alpha² S² + sigma²)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, predictions, processes, samplers, schedules
from diffjax.errors import InputError

S, KEY, NUM = 0.6, jax.random.key(0), 20_000
STRAIGHT, VP = schedules.straight(), schedules.vp()
TIMES = {"straight": (STRAIGHT, (0.0, 0.2, 0.7), (0.3, 0.9, 1.0)), "vp": (VP, (0.1, 0.3, 0.5), (0.2, 0.8, 1.0))}


def phi(schedule, t):
    return jnp.sqrt(schedule.alpha(t) ** 2 * S**2 + schedule.sigma(t) ** 2)


def exact(schedule, factor=1.0):
    """u = x (1 - phi(r)/phi(t))/(t - r), t > r."""

    def average(x, r, t):
        return factor * x * ((1.0 - phi(schedule, r) / phi(schedule, t)) / (t - r))[:, None]

    return average


def by_hand(name, r, t):
    """phi(r), phi(t), alpha(t), sigma(t) and the slopes of the last two, in numpy."""
    if name == "straight":
        return np.hypot((1 - r) * S, r), np.hypot((1 - t) * S, t), 1 - t, t, -np.ones_like(t), np.ones_like(t)

    def rate(t):
        return 0.1 * t + 0.5 * t**2 * 19.9

    alpha, slope = np.exp(-rate(t) / 2), 0.1 + 19.9 * t
    sigma = np.sqrt(-np.expm1(-rate(t)))
    at = [np.sqrt(np.exp(-rate(a)) * S**2 - np.expm1(-rate(a))) for a in (r, t)]
    return *at, alpha, sigma, -0.5 * slope * alpha, 0.5 * slope * alpha**2 / sigma


@pytest.mark.parametrize("name", list(TIMES))
def test_the_loss_of_the_exact_mean_velocity_is_the_variance_of_v_and_no_more(name):
    """Every example's is ((v - v*) phi(r)/phi(t))²; its mean on the straight path S² phi(r)²/phi(t)⁴."""
    schedule, *times = TIMES[name]
    r, t = (np.tile(np.array(time), NUM) for time in times)
    x0 = S * jax.random.normal(jax.random.key(1), (3 * NUM, 1))
    args = processes.gaussian(schedule), KEY, x0, jnp.asarray(r, jnp.float32), jnp.asarray(t, jnp.float32)

    @jax.jit
    def both(process, key, *rest):
        def loss(factor):
            return losses.mean_flow(process, exact(schedule, factor), key, *rest)

        # u as a function of the factor has the same total derivative, times the factor: it must not be followed.
        return loss(1.0), jax.jacfwd(loss)(1.0)

    found, slope = both(*args)
    eps, x = np.float64(jax.random.normal(KEY, (3 * NUM, 1)))[:, 0], np.float64(x0)[:, 0]
    phi_r, phi_t, alpha, sigma, alpha_rate, sigma_rate = by_hand(name, r, t)
    xt, v = alpha * x + sigma * eps, alpha_rate * x + sigma_rate * eps
    best = (alpha * alpha_rate * S**2 + sigma * sigma_rate) / phi_t**2 * xt
    np.testing.assert_allclose(found, ((v - best) * phi_r / phi_t) ** 2, rtol=2e-3, atol=2e-4 * v.std() ** 2)
    u = xt * (1 - phi_r / phi_t) / (t - r)
    own = -2 * (v - best) * phi_r / phi_t * u  # 2 (u - target) u, the target held
    np.testing.assert_allclose(slope, own, rtol=5e-3, atol=2e-3 * own.std())
    each = own.reshape(-1, 3)
    assert (abs(each.mean(0)) < 5 * each.std(0) / np.sqrt(NUM)).all()  # nothing near is better
    if name == "straight":
        each, want = np.float64(found).reshape(-1, 3), (S * phi_r / phi_t**2)[:3] ** 2
        assert (abs(each.mean(0) - want) < 5 * each.std(0) / np.sqrt(NUM)).all()
        assert np.isfinite(each).all() and t.max() == 1.0


def test_at_one_time_it_is_flow_matching():
    x0, t = jax.random.normal(KEY, (6, 2, 2)), jnp.linspace(0.0, 1.0, 6)

    def average(x, r, t):
        return jnp.sin(2.0 * x) + (t**2 - r)[:, None, None]

    found = losses.mean_flow(processes.gaussian(STRAIGHT), average, KEY, x0, t, t)
    eps, x, at = np.float64(jax.random.normal(KEY, x0.shape)), np.float64(x0), np.linspace(0, 1, 6)[:, None, None]
    error = np.sin(2 * ((1 - at) * x + at * eps)) + at**2 - at - (eps - x)
    np.testing.assert_allclose(found, (error**2).mean((1, 2)), rtol=1e-4)
    same = losses.simple(
        processes.gaussian(STRAIGHT), predictions.velocity(lambda x, t: average(x, t, t)), KEY, x0, t, "velocity"
    )
    np.testing.assert_allclose(found, same, rtol=1e-5)


def test_the_adaptive_weight_is_held():
    loss = jnp.array([1e-4, 0.5, 80.0])
    for power in (0.0, 0.5, 1.0):
        value, slope = jax.jvp(lambda x, p=power: losses.adaptive(x, p), (loss,), (jnp.ones(3),))
        weight = (np.float64(loss) + 1e-3) ** -power
        np.testing.assert_allclose(value, weight * loss, rtol=1e-5)
        np.testing.assert_allclose(slope, weight, rtol=1e-5)


@pytest.mark.parametrize("times", [(1.0, 0.0), (1.0, 0.7, 0.2, 0.0)])
def test_steps_of_any_length_are_exact(times):
    """From x_1 to x_0 = x_1 phi(0)/phi(1), through the flow's own points."""
    for schedule in (STRAIGHT, VP):
        stepper = samplers.mean_flow(processes.gaussian(schedule), exact(schedule))
        x1 = jnp.array([[0.5], [-2.0]])
        predict = predictions.velocity(lambda x, t: jnp.full_like(x, jnp.nan))  # not used
        end, path = samplers.denoise(stepper, predict, KEY, x1, jnp.asarray(times), lambda state: state.x)
        want = [np.float64(x1) * float(phi(schedule, t) / phi(schedule, 1.0)) for t in times[1:]]
        np.testing.assert_allclose(path, want, rtol=1e-5)
        np.testing.assert_array_equal(end, path[-1])


def test_times_in_the_wrong_order_are_said():
    args = processes.gaussian(STRAIGHT), exact(STRAIGHT), KEY, jnp.ones((2, 1))
    with pytest.raises(InputError, match="r must be at most t"):
        losses.mean_flow(*args, np.array([0.5, 0.2]), np.array([0.4, 0.6]))
