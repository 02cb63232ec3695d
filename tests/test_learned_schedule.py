"""The learned noise schedule: its formulas in float64, its ends, and the gradients that its parts descend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from diffjax import learned_schedule, processes
from diffjax.errors import InputError
from diffjax.learned_schedule import least_variance

UNITS = 16


def any_interior(seed):
    """Parameters as after a long training: each has moved by about 1."""
    start, rng = learned_schedule.interior(UNITS), np.random.default_rng(seed)
    return {name: np.asarray(x) + rng.standard_normal(x.shape).astype(np.float32) for name, x in start.items()}


def in_float64(interior, t):
    """u(t) as the paper has it: m = l1 + l3(sigmoid(l2(l1(t)))), l1(t) = c t + 2, weights positive."""
    log_c, log_a, b, log_w = (np.asarray(interior[k], np.float64) for k in ("log_c", "log_a", "b", "log_w"))
    kernel1, bias1 = np.exp(log_c), 2.0
    kernel2 = np.exp(log_a) / kernel1
    bias2 = b - kernel2 * bias1

    def m(t):
        l1 = kernel1 * np.asarray(t, np.float64) + bias1
        return l1 + expit(l1[..., None] * kernel2 + bias2) @ np.exp(log_w)

    return (m(t) - m(0.0)) / (m(1.0) - m(0.0))


@pytest.mark.parametrize("ends", [(-13.3, 5.0), (-80.0, 60.0)])
def test_the_schedule_is_the_papers_and_accurate_at_both_ends(ends):
    t = np.concatenate([[0.0, 1e-6, 1e-4], np.linspace(0.01, 1.0, 100)])
    t = t.astype(np.float32)

    @jax.jit
    def evaluated(interior):
        schedule = learned_schedule.learned(*ends, interior)
        return [fn(t) for fn in (schedule.position, schedule.log_snr, schedule.alpha, schedule.sigma)]

    for seed in range(5):
        interior = any_interior(seed)
        u, log_snr, alpha, sigma = (np.asarray(x, np.float64) for x in evaluated(interior))
        assert u[0] == 0 and abs(u[-1] - 1) < 1e-6
        assert (np.diff(u) > 0).all()
        np.testing.assert_allclose(u, in_float64(interior, t), atol=1e-6)
        np.testing.assert_allclose(-log_snr, ends[0] + (ends[1] - ends[0]) * u, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(alpha, expit(log_snr) ** 0.5, rtol=1e-5)
        np.testing.assert_allclose(sigma, expit(-log_snr) ** 0.5, rtol=1e-5)


def test_at_the_start_log_snr_is_nearly_linear():
    t = np.linspace(0.0, 1.0, 101, dtype=np.float32)
    schedule = learned_schedule.learned(-13.3, 5.0, learned_schedule.interior())
    np.testing.assert_allclose(schedule.position(t), t, atol=0.05)


def test_the_rate_is_the_slope():
    schedule = learned_schedule.learned(-10.0, 4.0, any_interior(1))
    t = np.linspace(0.05, 0.95, 7, dtype=np.float32)
    gamma, rate = schedule.rate(t)
    np.testing.assert_array_equal(gamma, schedule.gamma(t))
    step = 1e-4
    u_after, u_before = (in_float64(schedule.interior, t + sign * step) for sign in (1, -1))
    np.testing.assert_allclose(rate, 14.0 * (u_after - u_before) / (2 * step), rtol=1e-3)


def test_it_is_a_schedule_of_the_library():
    """q(x_t | x_s) after q(x_s | x_0) is q(x_t | x_0). In a pair s = 0 is the data, though alpha(0) is below 1."""
    process = processes.gaussian(learned_schedule.learned(-3.0, 5.0, any_interior(2)))
    x0, s, t = np.ones((3, 2), np.float32), np.float32([1e-3, 0.3, 0.6]), np.float32([0.1, 0.5, 1.0])

    @jax.jit
    def all_of_them():
        first = process.marginal(x0, s)
        from_data = process.transition(x0, 0.0, t), process.posterior(0.5 * x0, x0, 0.0, t)
        return first, process.transition(first.mean, s, t), process.marginal(x0, t), *from_data

    first, after, direct, whole, back = all_of_them()
    np.testing.assert_allclose(after.mean, direct.mean, rtol=1e-5)
    kept = (np.asarray(after.mean) / first.mean) ** 2
    both_steps = np.asarray(after.variance) + kept * first.variance
    np.testing.assert_allclose(both_steps, np.broadcast_to(direct.variance, x0.shape), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, direct)
    np.testing.assert_allclose(back.mean, 0.5, rtol=1e-6)
    np.testing.assert_array_equal(back.variance, 0.0)


def cost_of(z, scale):
    """Any function of gamma and gamma', entry by entry."""
    return lambda gamma, rate: scale * rate * (1 + jnp.sin(gamma + z)) ** 2


def test_ends_and_network_descend_the_cost_and_the_interior_its_square():
    """Against three explicit gradients by plain differentiation, weights of the examples included."""
    t, z = jnp.linspace(0.1, 0.9, 5), jnp.arange(5.0)
    weights = jnp.array([0.5, 1.0, 0.0, 2.0, 1.0])
    params = {"ends": (-3.0, 2.0), "interior": any_interior(3), "scale": 0.7}

    def schedule_of(params):
        return learned_schedule.Learned(*params["ends"], params["interior"])

    def plain(params, power):
        values = cost_of(z, params["scale"])(*schedule_of(params).rate(t))
        return (weights * values**power).sum()

    def trained(params):
        values = least_variance(schedule_of(params), t, cost_of(z, params["scale"]))
        return (weights * values).sum(), values

    @jax.jit
    def gradients(params):
        (total, values), found = jax.value_and_grad(trained, has_aux=True)(params)
        return total, values, found, [jax.grad(plain)(params, power) for power in (1, 2)], plain(params, 1)

    total, values, found, (of_cost, of_square), expected_total = gradients(params)
    np.testing.assert_allclose(total, expected_total, rtol=1e-6)
    np.testing.assert_allclose(total, weights @ values, rtol=1e-6)
    expected = {"ends": of_cost["ends"], "scale": of_cost["scale"], "interior": of_square["interior"]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)
    assert abs(of_square["interior"]["log_c"] / of_cost["interior"]["log_c"] - 1) > 0.1  # the two do differ


def test_it_keeps_the_type_of_the_times():
    interior = any_interior(4)

    def everything(t):
        schedule = learned_schedule.learned(-9.0, 5.0, interior)
        squared = least_variance(schedule, t, lambda gamma, rate: gamma * rate)
        return schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t), schedule.rate(t), squared

    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for given, kept in (("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")):
            out = jax.eval_shape(everything, jax.ShapeDtypeStruct((2,), given))
            assert {leaf.dtype.name for leaf in jax.tree.leaves(out)} == {kept}


@pytest.mark.parametrize("ends", [(5.0, -13.3), (1.0, 1.0), (-np.inf, 5.0), (0.0, np.nan)])
def test_ends_out_of_order_are_said(ends):
    with pytest.raises(InputError, match=r"gamma_0=.* must be less than gamma_1="):
        learned_schedule.learned(*ends, learned_schedule.interior(3))


@pytest.mark.parametrize("units", [0, -1, 2.0, True])
def test_units_that_cannot_be_are_said(units):
    with pytest.raises(InputError, match="must be a positive integer"):
        learned_schedule.interior(units)
