"""The flow-matching loss against closed forms: its minimum on Gaussian data, and the velocity that reaches it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, predictions, processes, reference, schedules, sde
from diffjax.errors import InputError

STRAIGHT = processes.gaussian(schedules.straight())
S, N = 0.6, 100_000
KEY = jax.random.key(0)


def optimal(x, t):
    """E[eps - x_0 | x_t] of x_0 ~ N(0, S²)."""
    t = schedules.broadcast_to(t, x)
    return (t - (1 - t) * S**2) / ((1 - t) ** 2 * S**2 + t**2) * x


def evenly(num):
    return jax.random.permutation(jax.random.key(7), (jnp.arange(num) + 0.5) / num)


def test_the_least_loss_of_gaussian_data_is_s_half_pi():
    x0 = S * jax.random.normal(KEY, (N, 2))
    velocity = predictions.velocity(optimal)
    loss = np.float64(losses.flow_matching(STRAIGHT, velocity, jax.random.key(1), x0, evenly(N)))
    assert abs(loss.mean() - S * math.pi / 2) < 5 * loss.std() / math.sqrt(N)
    # Anything else has more: by the mean square of the difference.
    off = predictions.velocity(lambda x, t: optimal(x, t) + 0.3)
    more = np.float64(losses.flow_matching(STRAIGHT, off, jax.random.key(1), x0, evenly(N))) - loss
    assert abs(more.mean() - 0.09) < 5 * more.std() / math.sqrt(N)


def test_a_paired_source_takes_the_place_of_the_noise():
    """x_1 = m + x_0 a: on the line between them the velocity is known, and at the optimum nothing is lost."""
    x0 = S * jax.random.normal(KEY, (500, 3))
    source, t = 2.0 + 3.0 * x0, evenly(500)

    def known(x, t):
        t = schedules.broadcast_to(t, x)
        return 2.0 + 2.0 * (x - 2.0 * t) / (1 + 2.0 * t)  # x_t = x_0 (1 - t + 3 t) + 2 t

    loss = losses.flow_matching(STRAIGHT, predictions.velocity(known), KEY, x0, t, source)
    np.testing.assert_allclose(loss, 0.0, atol=1e-9)
    zero = predictions.velocity(lambda x, t: 0.0 * x)
    np.testing.assert_allclose(
        losses.flow_matching(STRAIGHT, zero, KEY, x0, t, source), ((source - x0) ** 2).mean(1), rtol=1e-5
    )
    with pytest.raises(InputError, match=r"source of shape \(4, 3\) must be of the shape of the data, \(500, 3\)"):
        losses.flow_matching(STRAIGHT, zero, KEY, x0, t, source[:4])


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["straight", "vp", "ve", "cosine"])
def test_one_estimate_in_five_clothes(name):
    """The loss is the same whichever kind is predicted, and the velocity that of the marginal."""
    schedule = {**schedules.CONTINUOUS, **schedules.CHAINS}[name]()
    process = processes.gaussian(schedule)
    mixture = reference.GaussianMixture(
        jnp.array([0.3, 0.7]), jnp.array([[1.0], [-0.5]]), jnp.array([[[0.2]], [[0.4]]])
    )
    x0 = mixture.sample(KEY, 64)
    t = 0.1 + 0.8 * evenly(64)
    if name == "cosine":
        t = (jnp.round(t * 1000) + 0.5) / 1000  # between two points of the grid, where there is a derivative

    # Where alpha(1) = 0, eps and score are refused at times that are not known.
    kinds = ("x0", "v", "velocity") if schedules.no_signal_at_end(schedule) else predictions.KINDS

    @jax.jit
    def by_kind(x0, t):
        predicts = [mixture.predict(schedule, kind) for kind in kinds]
        return [losses.flow_matching(process, predict, jax.random.key(1), x0, t) for predict in predicts]

    found = by_kind(x0, t)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=3e-3, atol=1e-4 * found[0].max())
    # d p/dt + d(u p)/dx = 0, by differences of the exact density.
    x, time, h = jnp.linspace(-2.0, 2.0, 21)[:, None], 0.4005, 2e-4
    with jax.enable_x64(True):
        x, wide = jnp.asarray(x, jnp.float64), jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), mixture)
        flow = sde.velocity(process, wide.predict(schedule, "score" if "score" in kinds else "velocity"))

        @jax.jit
        def change_and_flux(x, time):
            def density(x, t):
                return jnp.exp(wide.at(schedule.alpha(t), schedule.sigma(t)).log_prob(x))

            rate = (density(x, time + h) - density(x, time - h)) / (2 * h)
            return rate, [flow(x + e, time)[:, 0] * density(x + e, time) for e in (h, -h)]

        rate, flux = change_and_flux(x, jnp.asarray(time, jnp.float64))
        np.testing.assert_allclose(rate, -(flux[0] - flux[1]) / (2 * h), atol=1e-3 * np.abs(rate).max())
