"""Annealed Langevin: its exact variance on Gaussian data, and the weights of the toy where plain Langevin fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import mcmc, predictions, processes, samplers, schedules, sde
from diffjax.errors import InputError
from diffjax.sde import noise_levels

S2 = 0.6  # variance of the Gaussian data


def score(schedule):
    return predictions.score(lambda xt, t: -xt / (S2 + schedule.sigma(t)[:, None] ** 2))


GEOMETRIC = np.geomspace(4.0, 0.5, 5)


@pytest.mark.fast(1)
@pytest.mark.parametrize("levels", [GEOMETRIC, np.array([4.0, 3.0, 0.9, 0.5])])
@pytest.mark.parametrize("denoise", [True, False])
def test_variance_recursion(levels, denoise):
    # Standard error of a variance: √(2/n) of itself.
    n, steps, eps = 200_000, 3, 0.03
    process = processes.gaussian(schedules.ve(0.5, 4.0))
    times = jnp.linspace(1, 0, 5) if levels is GEOMETRIC else noise_levels.level_times(process.schedule, levels)
    stepper = samplers.annealed_langevin(process, eps, steps, denoise)
    run = jax.jit(
        lambda key: samplers.sample(
            stepper, score(process.schedule), key, times, (n // 2, 2), lambda state: (state.x**2).mean()
        )
    )
    x, saved = run(jax.random.key(0))
    want, v = [], 16.0  # the prior's
    for sigma in levels:
        for _ in range(steps):
            h = eps * (sigma / 0.5) ** 2
            v = (1 - h / (S2 + sigma**2)) ** 2 * v + 2 * h
        want.append(v)
    last = want.pop() * ((S2 / (S2 + 0.25)) ** 2 if denoise else 1.0)  # two levels in the last step; E[x_0 | x]
    np.testing.assert_allclose(saved, [*want[:-1], last], rtol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.float64(x).var(), last, rtol=5 * np.sqrt(2 / n))


WEIGHTS, MEANS = jnp.array([0.2, 0.8]), jnp.array([[-5.0, -5.0], [5.0, 5.0]])


def toy(x, sigma=0.0):
    """Score of the toy's ⅕ N((-5, -5), I) + ⅘ N((5, 5), I) with noise."""
    variance = 1.0 + sigma**2
    which = jax.nn.softmax(jnp.log(WEIGHTS) - 0.5 * ((x[:, None] - MEANS) ** 2).sum(-1) / variance)
    return (which @ MEANS - x) / variance


@pytest.mark.slow
def test_weights_of_the_toy():
    # Section 3.2.2 and figure 3 of Song & Ermon 2019. Standard error of a weight: √(0.2 · 0.8/n) = 0.004.
    n = 10_000
    start = jax.random.uniform(jax.random.key(0), (n, 2), minval=-8.0, maxval=8.0)

    # Langevin forgets where it is within a mode and never leaves it: the weights are those of the basins.
    kernel = mcmc.langevin(None, 0.1, score=toy)
    plain = jax.jit(lambda key, x: mcmc.run(kernel, key, x, 200)[0].position[-1])(jax.random.key(1), start)
    low = np.asarray(plain.sum(-1) < 0)
    assert abs(low.mean() - 0.5) < 0.03
    np.testing.assert_allclose(
        np.float64(plain)[low].mean(0), -5, atol=5 / np.sqrt(0.5 * n)
    )  # the mode itself is right

    # Ten levels from 20, where the modes are one, to 0.7, where they are far apart. What is left of a bias falls with
    # the number of steps: 0.015, 0.009, 0.006 with 50, 100, 200.
    process = processes.gaussian(schedules.ve(0.7, 20.0))
    stepper = samplers.annealed_langevin(process, 0.1, 200)
    predict = predictions.score(lambda xt, t: toy(xt, process.schedule.sigma(t)[:, None]))
    run = jax.jit(lambda key, x: samplers.denoise(stepper, predict, key, x, jnp.linspace(1, 0, 10)))
    weight = (np.asarray(run(jax.random.key(2), start)).sum(-1) < 0).mean()
    print(low.mean(), weight)
    assert abs(weight - 0.2) < 0.02


def test_bad_input():
    process = processes.gaussian(schedules.ve())
    for schedule in (schedules.vp(), schedules.sub_vp(), schedules.linear(10)):
        with pytest.raises(InputError, match="noise left at t = 0"):
            samplers.annealed_langevin(processes.gaussian(schedule), 1e-5, 5)
    with pytest.raises(InputError, match="needs a Gaussian process"):
        samplers.annealed_langevin(processes.binomial(schedules.linear(10)), 1e-5, 5)
    with pytest.raises(InputError, match="step_size"):
        samplers.annealed_langevin(process, 0.0, 5)
    with pytest.raises(InputError, match="num_steps"):
        samplers.annealed_langevin(process, 1e-5, 0)
    stepper = samplers.annealed_langevin(process, 1e-5, 2)
    with pytest.raises(InputError, match="'logits'"):
        samplers.sample(stepper, predictions.logits(lambda xt, t: xt), jax.random.key(0), jnp.array([1.0, 0.0]), (2, 1))


@pytest.mark.fast(1)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_narrow_types_become_float32_in_wide_mode(dtype):
    """Of the target N(0, v) at both levels the law is known: `noise_levels.langevin_variance`, one draw per entry."""
    n, num_steps = 20_000, np.int8(100)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        process = processes.gaussian(schedules.ve(1.0, 2.0))
        stepper = samplers.annealed_langevin(process, 0.1, num_steps, denoise=False)
        predict = predictions.score(lambda xt, t: -xt / 3)
        x = samplers.denoise(stepper, predict, jax.random.key(0), jnp.zeros((n, 1), dtype), jnp.array([1.0, 0.0]))
        assert x.dtype == np.float32
    want = 0.0
    for h in (0.4, 0.1):
        want = sde.noise_levels.langevin_variance(want, h, 3.0, int(num_steps))
    assert abs(np.float64(x).var() - want) < 5 * want * np.sqrt(2 / n)
