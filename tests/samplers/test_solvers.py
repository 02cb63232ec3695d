"""Solvers of the flow and of the equation with noise: orders, formulae by numpy and quadrature, and the ends."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from diffjax import bounds, predictions, processes, reference, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

S2 = 0.25  # variance of the 1-D Gaussian data
KEY = jax.random.key(0)
DETERMINISTIC = ("euler", "heun", "midpoint", "rk4", "dpmpp_2s", "dpmpp_2m", "dpmpp_3m", "unipc")
CATEGORICAL = ("tau_leaping", "remasking", "first_hitting")  # of classes, not of numbers
ENDLESS = {  # schedules that end without signal
    "straight": schedules.straight(),
    "chain": schedules.zero_terminal_snr(schedules.linear(50, 2e-3, 0.2)),
}
# The mixture of the orders: smooth.
W, M = np.array([0.4, 0.6]), np.array([[1.0, 0.3], [-0.8, -0.4]])
C = np.array([[[0.6, 0.1], [0.1, 0.5]], [[0.5, 0.0], [0.0, 0.8]]])


def exact(schedule, kind="x0"):
    """E[x_0 | x_t] for x_0 ~ N(0, S2), or v or the velocity from it."""

    def predict(xt, t):
        alpha, sigma = (schedules.broadcast_to(a, xt) for a in (schedule.alpha(t), schedule.sigma(t)))
        x0 = alpha * S2 / (alpha**2 * S2 + sigma**2) * xt
        eps = sigma / (alpha**2 * S2 + sigma**2) * xt
        return Prediction(predictions.unpair(kind, schedule, x0, eps, t), kind)

    return predict


# Orders ----------------------------------------------------------------------------------------------------------


def mixture_flow(t, x):
    """dx/dt = x̂_0's velocity on the straight path, eps - x_0, for the mixture, in numpy."""
    x = x.reshape(-1, 2)
    a, s = 1 - t, t
    top, bottom = 0.0, 0.0
    for w, m, c in zip(W, M, C, strict=True):
        cov = a * a * c + s * s * np.eye(2)
        r = np.linalg.solve(cov, (x - a * m).T).T
        q = w * np.exp(-0.5 * ((x - a * m) * r).sum(1)) / np.sqrt(np.linalg.det(cov))
        estimate = m + a * r @ c
        top, bottom = top + q[:, None] * estimate, bottom + q
    x0 = top / bottom[:, None]
    return ((x - x0) / s).ravel()


@pytest.mark.slow
def test_orders_of_convergence_from_pure_noise():
    """On the straight path, where alpha(1) = 0: published orders, and one more for UniPC's corrector.

    In the clock of `samplers.straight` the path is smooth, so that equal times do for the rules of Runge and Kutta.
    """
    # Times crowd towards both ends, where the steps are of first order for everyone.
    x1 = np.random.default_rng(0).normal(size=(16, 2))
    # At t = 1 the estimate is the mean of the data, whatever x: the slope there is x - mean.
    truth = scipy.integrate.solve_ivp(mixture_flow, (1, 1e-9), x1.ravel(), rtol=1e-11, atol=1e-11, method="DOP853").y[
        :, -1
    ]
    orders = {"euler": 1, "heun": 2, "dpmpp_2s": 2, "dpmpp_2m": 2, "dpmpp_3m": 3, "unipc 1": 2, "unipc 2": 3}
    orders |= {"midpoint": 2, "rk4": 4}
    with jax.enable_x64(True):
        process = processes.gaussian(schedules.straight())
        mixture = reference.GaussianMixture(*(jnp.asarray(a) for a in (W, M, C)))
        predict = mixture.predict(process.schedule, "x0")
        for name, order in orders.items():
            name, _, of = name.partition(" ")
            stepper = samplers.unipc(process, int(of)) if of else getattr(samplers, name)(process)
            errors = []
            for n in (8, 16, 32) if name == "rk4" else (32, 64, 128):  # beyond, rk4 has the truth's own error
                u = np.linspace(1, 0, n + 1)
                times = jnp.asarray(u if name in ("midpoint", "rk4") else u**3 / (u**3 + (1 - u) ** 3))
                x = samplers.denoise(stepper, predict, KEY, jnp.asarray(x1), times)
                errors.append(np.sqrt(((np.asarray(x).ravel() - truth) ** 2).mean()))
            slopes = np.log2(np.array(errors[:-1]) / errors[1:])
            print(name, of, errors, slopes)
            assert (np.abs(slopes - order) < 0.35).all(), (name, errors, slopes)


# Formulae --------------------------------------------------------------------------------------------------------

VP = schedules.vp()
TIMES = np.array([0.9, 0.7, 0.6, 0.45, 0.2])


def alpha_sigma(t):
    rate = 0.1 * t + 9.95 * t * t
    return np.exp(-0.5 * rate), np.sqrt(-np.expm1(-rate))


def lam(t):
    alpha, sigma = alpha_sigma(t)
    return np.log(alpha / sigma)


def d(x, t):
    """The estimate of x_0: nonlinear, so that every order shows."""
    return np.sin(x) * (1 - t)


def d_jax(x, t):
    return jnp.sin(x) * schedules.broadcast_to(1 - t, x)


def through(x, t, s, points):
    """(sigma_s/sigma_t) x + alpha_s ∫ e^(λ - λ_s) P(λ) dλ by quadrature, P the polynomial through (λ, D) points."""
    (_, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
    places, values = zip(*points, strict=True)
    out = np.empty_like(x)
    for i in range(len(x)):
        polynomial = np.poly1d(np.polyfit(places, [v[i] for v in values], len(points) - 1))
        integral = scipy.integrate.quad(lambda u, p=polynomial: np.exp(u - lam(s)) * p(u), lam(t), lam(s))[0]
        out[i] = sigma_s / sigma_t * x[i] + alpha_s * integral
    return out


def by_hand(name, x):
    """The samplers in numpy, over TIMES."""
    points, before = [], None
    for t, s in itertools.pairwise(TIMES):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
        h, x0 = lam(s) - lam(t), d(x, t)
        if name in ("euler", "heun"):
            eps = (x - alpha_t * x0) / sigma_t
            end = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * eps
            if name == "heun":
                x_s = alpha_s * end
                eps_s = (x_s - alpha_s * d(x_s, s)) / sigma_s
                end = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * (eps + eps_s) / 2
            x = alpha_s * end
        elif name == "dpmpp_2s":
            r = scipy.optimize.brentq(lambda u, t=t, h=h: lam(u) - lam(t) - h / 2, s, t, xtol=1e-14)
            alpha_r, sigma_r = alpha_sigma(r)
            middle = sigma_r / sigma_t * x - alpha_r * np.expm1(-h / 2) * x0
            x = sigma_s / sigma_t * x - alpha_s * np.expm1(-h) * d(middle, r)
        elif name == "dpmpp_3m":
            points = [(lam(t), x0), *points][:3]
            x = through(x, t, s, points)
        else:
            order = int(name[-1])
            if before is not None:
                x_r, r = before
                x = through(x_r, r, t, [(lam(t), x0), *points[:order]])
            points = [(lam(t), x0), *points][:3]
            before = (x, t)
            x = through(x, t, s, points[:order])
    return x


def test_against_formulae_worked_by_hand():
    # The four steps of TIMES, uneven, with a history that grows; the integrals by quadrature.
    process, x = processes.gaussian(VP), np.array([2.0, -0.7])
    apart = ("dpmpp_2m", "unipc", "midpoint", "rk4")  # the last two are worked by hand in test_straight.py
    names = [name for name in DETERMINISTIC if name not in apart] + ["unipc 1", "unipc 2", "unipc 3"]

    def run(name, x, times):
        kind, _, order = name.partition(" ")
        stepper = samplers.unipc(process, int(order)) if order else getattr(samplers, kind)(process)
        return samplers.denoise(stepper, predictions.x0(d_jax), KEY, x, times)

    with jax.enable_x64(True):
        f = jax.jit(lambda x, times: {name: run(name, x, times) for name in names})
        got = f(jnp.asarray(x)[:, None], jnp.asarray(TIMES))
    for name in names:
        np.testing.assert_allclose(np.asarray(got[name])[:, 0], by_hand(name, x), rtol=1e-7, err_msg=name)


def test_sde_solver_worked_by_hand():
    # Lu et al. 2022, SDE-DPM-Solver++(2M), with the noise that the key draws.
    process, x = processes.gaussian(VP), np.array([2.0, -0.7])
    times = TIMES[:3]
    with jax.enable_x64(True):
        run = jax.jit(lambda x: samplers.denoise(samplers.dpmpp_2m_sde(process), predictions.x0(d_jax), KEY, x, times))
        got = np.asarray(run(jnp.asarray(x)[:, None]))[:, 0]
        z = [np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), (2, 1)))[:, 0] for i in range(2)]
    old = None
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        (_, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
        h, x0 = lam(s) - lam(t), d(x, t)
        direction = x0 if old is None else x0 + h / (2 * (lam(t) - old[0])) * (x0 - old[1])
        added = 1 - np.exp(-2 * h)
        old = lam(t), x0
        x = sigma_s / sigma_t * np.exp(-h) * x + alpha_s * added * direction + sigma_s * np.sqrt(added) * z[i]
    np.testing.assert_allclose(got, x, rtol=1e-7)


def test_churn_worked_by_hand():
    # Karras et al. 2022, algorithm 2, on the schedule whose time is the noise level.
    schedule = schedules.edm(0.1, 10.0)
    process, t, s = processes.gaussian(schedule), 0.4, 0.3
    stepper = samplers.euler(process, churn=3.0, steps=10, churn_noise=1.1, churn_levels=(1.0, 8.0))
    predict = predictions.x0(d_jax)

    def step(x, t, s):
        return stepper.step(KEY, predict, stepper.init(x), t, s).x

    with jax.enable_x64(True):
        x = jnp.array([[2.0], [-0.7]])
        got = jax.jit(step)(x, jnp.asarray(t), jnp.asarray(s))
        z = jax.random.normal(jax.random.split(KEY)[0], x.shape)
        raised = 4.0 * 1.3
        x_hat = x + 1.1 * np.sqrt(raised**2 - 4.0**2) * z
        x0 = d(np.asarray(x_hat), raised / 10)
        np.testing.assert_allclose(got, x0 + 3.0 / raised * (x_hat - x0), rtol=1e-7)
        # Outside of the levels, and with no room above, it is Euler's step alone.
        for t in (0.05, 1.0):
            x0 = d(np.asarray(x), t)
            want = x0 + 0.5 * (x - x0)
            np.testing.assert_allclose(jax.jit(step)(x, jnp.asarray(t), jnp.asarray(t / 2)), want, rtol=1e-7)


# Strong convergence ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_noise_of_one_path_is_refined():
    # Error against 160 steps with the same key, root mean square over 400 examples: halved by halving the steps.
    process = processes.gaussian(schedules.vp(0.1, 5.0))
    predict = exact(process.schedule)
    x1 = jax.random.normal(jax.random.key(1), (400, 1))
    steppers = {
        "ancestral": samplers.ancestral(process),
        "ddim": samplers.ddim(process, 1.0),
        "euler_maruyama": samplers.euler_maruyama(process),
        "reverse_diffusion": samplers.reverse_diffusion(process),
        "dpmpp_2m_sde": samplers.dpmpp_2m_sde(process),
    }

    @jax.jit
    def ends(times, path_key):
        return {
            name: samplers.denoise(stepper, predict, path_key, x1, times, path=True)
            for name, stepper in steppers.items()
        }

    found = {n: ends(jnp.linspace(1.0, 0.1, n + 1), KEY) for n in (10, 20, 40, 160)}
    for name in steppers:
        errors = [float(jnp.sqrt(jnp.mean((found[n][name] - found[160][name]) ** 2))) for n in (10, 20, 40)]
        print(name, errors)
        assert errors[0] < 0.2 and 1.5 < errors[0] / errors[1] < 2.7 and 1.6 < errors[1] / errors[2] < 3.2, name
    # Another key is another path, as far from this one as two draws are.
    other = ends(jnp.linspace(1.0, 0.1, 11), jax.random.key(7))
    assert all(float(jnp.sqrt(jnp.mean((other[name] - found[10][name]) ** 2))) > 0.3 for name in steppers)


def test_increments_of_a_path_are_those_of_brownian_motion():
    # z of (t, s) is N(0, 1), and √(t - r) z(t, r) = √(t - s) z(t, s) + √(s - r) z(s, r).
    n, (t, s, r) = 20_000, (0.9, 0.55, 0.3)
    x = jnp.zeros((n, 1))

    @jax.jit
    def increments(key):
        path = samplers.driver.Path(key)
        return [samplers.driver.normal(path, x, jnp.asarray(a), jnp.asarray(b)) for a, b in ((t, s), (s, r), (t, r))]

    upper, lower, whole = (np.float64(z)[:, 0] for z in increments(KEY))
    np.testing.assert_allclose(math.sqrt(t - r) * whole, math.sqrt(t - s) * upper + math.sqrt(s - r) * lower, atol=1e-5)
    for z in (upper, lower, whole):
        assert abs(z.mean()) < 5 / math.sqrt(n) and abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(np.mean(upper * lower)) < 5 / math.sqrt(n)


def test_noise_that_is_not_of_a_path_says_so():
    process = processes.gaussian(schedules.ve(0.1, 5.0))
    times, args = jnp.array([1.0, 0.5, 0.0]), (exact(process.schedule), KEY)
    for name in ("predictor_corrector", "annealed_langevin", "restart"):
        stepper = samplers.make(name, process, {})
        with pytest.raises(InputError, match=f"noise of {name} is not that of one Brownian path"):
            samplers.sample(stepper, *args, times, (2, 1), path=True)


# Ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENDLESS))
def test_every_sampler_works_where_there_is_no_signal_left(name):
    """1, 2, 3 and 40 uneven steps from alpha = 0 to sigma = 0: finite, and 40 reach the deviation of the data."""
    schedule, n = ENDLESS[name], 2000
    process = processes.gaussian(schedule)
    # `consistency` needs the end of a path, not a mean: tests/losses/test_consistency.py.
    names = [name for name in samplers.SAMPLERS if name not in ("annealed_langevin", "consistency", *CATEGORICAL)]
    steppers = {name: samplers.make(name, process, {"restart_levels": (0.1, 0.5)}) for name in names}
    grids = {k: samplers.noise_levels(schedule, k) for k in (1, 2, 3, 40)}

    @jax.jit
    def ends(key):
        return {
            (name, k): samplers.sample(stepper, exact(schedule), key, grid, (n, 1))
            for name, stepper in steppers.items()
            for k, grid in grids.items()
            if k != 2 or name in ("heun", "unipc")  # the others' two steps are among their three
        }

    for (name, k), x in ends(KEY).items():
        assert np.isfinite(x).all(), (name, k)
        if k == 1 and name not in ("probability_flow", "predictor_corrector", "midpoint", "rk4"):
            np.testing.assert_allclose(x, 0.0, atol=1e-6, err_msg=name)  # the mean of the data
        if k == 40:
            bias = 0.02 if name in (*DETERMINISTIC[1:], "probability_flow", "restart") else 0.25
            assert abs(np.float64(x).std() / math.sqrt(S2) - 1) < bias + 5 / math.sqrt(2 * n), (name, x.std())


def test_the_step_to_the_data_is_the_estimate_though_noise_is_left_at_0():
    process, x = processes.gaussian(schedules.ve(0.5, 5.0)), jnp.array([[2.0], [-0.7]])
    assert process.schedule.sigma(0.0) == 0.5
    for name in ("dpmpp_2s", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "unipc"):
        got = samplers.denoise(getattr(samplers, name)(process), predictions.x0(d_jax), KEY, x, jnp.array([0.3, 0.0]))
        np.testing.assert_allclose(got, d(np.asarray(x), 0.3), rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_kinds_that_exist_without_signal_agree():
    process, x1 = processes.gaussian(ENDLESS["chain"]), jnp.array([[2.0], [-0.7]])
    times = samplers.noise_levels(process.schedule, 7)
    for name in ("heun", "unipc", "ancestral"):
        stepper = samplers.make(name, process, {})
        ends = [
            samplers.denoise(stepper, exact(process.schedule, kind), KEY, x1, times) for kind in ("x0", "v", "velocity")
        ]
        for other in ends[1:]:
            np.testing.assert_allclose(other, ends[0], rtol=2e-4, atol=1e-5)


def test_a_kind_that_says_nothing_without_signal_is_refused():
    for schedule in ENDLESS.values():
        process = processes.gaussian(schedule)
        for kind in ("eps", "score"):
            predict = predictions.predictor(kind, lambda x, t: x)
            for stepper in (samplers.ancestral(process), samplers.unipc(process)):
                with pytest.raises(InputError, match=rf"{kind}.*says nothing about x_0 at t = 1.*predict x0, v or"):
                    samplers.sample(stepper, predict, KEY, jnp.array([1.0, 0.5, 0.0]), (2, 1))
            # Below t = 1 it is a prediction as any other.
            x = jnp.ones((1, 1))
            assert np.isfinite(predictions.convert(predict(x, 0.5), "x0", process, x, 0.5)).all()


def test_bounds_where_there_is_no_signal_left():
    """-log p(x) of N(0, S2): the bound of a fine chain is close to it from above, and its prior term is 0."""
    schedule = schedules.zero_terminal_snr(schedules.linear(100, 1e-3, 0.2))
    process, n = processes.gaussian(schedule), 4000
    x0 = math.sqrt(S2) * jax.random.normal(jax.random.key(1), (n, 1))
    terms = jax.jit(lambda x0: bounds.diffusion(process, exact(schedule), KEY, x0, schedule.times, "forward"))(x0)
    assert (np.asarray(terms.prior) == 0).all()
    total = np.float64(terms.total)
    truth = 0.5 * np.log(2 * np.pi * S2) + np.float64(x0)[:, 0] ** 2 / (2 * S2)
    gap = (total - truth).mean()
    error = (total - truth).std() / math.sqrt(n)
    print("gap", gap, "+-", error)
    assert -5 * error < gap < 0.1 + 5 * error


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits(dtype):
    # Inputs and network in 16 bits, without promotion by jax: float32 comes out, close to the same in float32.
    schedule = schedules.vp()
    process, x = processes.gaussian(schedule), jnp.array([[2.0], [-0.7]], dtype)
    names = [name for name in samplers.SAMPLERS if name not in ("annealed_langevin", "probability_flow", *CATEGORICAL)]

    def ends(x, dtype):
        predict = predictions.v(lambda x, t: (schedules.broadcast_to(jnp.sin(t), x) * x).astype(dtype))
        times = jnp.array([1.0, 0.8, 0.3, 0.1, 0.0])
        return {
            name: samplers.denoise(samplers.make(name, process, {"restart_levels": (0.1, 1.0)}), predict, KEY, x, times)
            for name in names
        }

    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(ends, static_argnums=1)(x, dtype)
    want = jax.jit(ends, static_argnums=1)(x.astype("float32"), "float32")
    for name in names:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want[name], rtol=0.05, atol=0.05, err_msg=name)


@pytest.mark.slow
def test_churn_and_restart_keep_the_law():
    # Exact estimates of N(0, S2): noise that comes and goes leaves the variance, but for the steps' own errors.
    schedule, n = schedules.edm(0.01, 20.0), 20_000
    process = processes.gaussian(schedule)
    times = samplers.noise_levels(schedule, 60)
    steppers = {
        "churned": samplers.heun(process, churn=30.0, steps=60),
        "restart": samplers.restart(process, (0.1, 1.0), 3, 10),
        "plain": samplers.heun(process),
    }

    @jax.jit
    def ends(key):
        return {
            name: samplers.sample(stepper, exact(schedule), key, times, (n, 1)) for name, stepper in steppers.items()
        }

    found = {name: np.float64(x) for name, x in ends(KEY).items()}
    for name, x in found.items():
        assert abs(x.var() / S2 - 1) < 0.01 + 5 * math.sqrt(2 / n), (name, x.var())
    # They have moved: x_0 is no function of x_1 any more.
    assert np.corrcoef(found["plain"][:, 0], found["churned"][:, 0])[0, 1] < 0.9
    assert np.corrcoef(found["plain"][:, 0], found["restart"][:, 0])[0, 1] < 0.9


# Grids -----------------------------------------------------------------------------------------------------------


def test_noise_levels_by_formula():
    num, rho = 18, 7.0
    sigma = (80 ** (1 / rho) + np.arange(num) / (num - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    got = 80.0 * np.float64(samplers.noise_levels(schedules.edm(), num))
    np.testing.assert_allclose(got, [*sigma, 0.0], rtol=1e-5)
    vp = schedules.vp()
    for spacing in ("log_snr", "exponential"):
        times = samplers.noise_levels(vp, num, spacing)
        np.testing.assert_allclose(np.diff(np.float64(vp.log_snr(times[:-1])), 2), 0.0, atol=2e-4)
        np.testing.assert_allclose(times[jnp.array([0, num - 1, num])], [1.0, 1e-3, 0.0], rtol=1e-5)
    np.testing.assert_allclose(samplers.noise_levels(vp, 4, "time"), [1, 0.75, 0.5, 0.25, 0])


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["karras", "log_snr", "time", "exponential"])
def test_noise_levels_decrease_strictly_on_every_schedule(spacing):
    for schedule in (*ENDLESS.values(), *(make() for make in schedules.SCHEDULES.values())):
        for num in (1, 2, 3, 50, 999):
            times = np.asarray(samplers.noise_levels(schedule, num, spacing))
            assert len(times) == num + 1 and times[0] == 1 and times[-1] == 0 and (np.diff(times) < 0).all()


def test_bad_input_is_named():
    process = processes.gaussian(VP)
    for call, words in (
        (lambda: samplers.noise_levels(VP, 0), "num_steps"),
        (lambda: samplers.noise_levels(VP, 4, "even"), "spacing must be one of karras, .*'even'"),
        (lambda: samplers.noise_levels(VP, 4, rho=0.0), "rho must be positive"),
        (lambda: samplers.noise_levels(VP, 4, last=0.7), r"last must be a time in \(0, 1/2\], not 0.7"),
        (lambda: samplers.unipc(process, 4), "order must be 1, 2 or 3, not 4"),
        (lambda: samplers.churned(process, samplers.euler(process), -0.1), "gamma must be at least 0, not -0.1"),
        (lambda: samplers.euler(process, 1.0, 5, churn_levels=(2.0, 1.0)), "levels=.* first below the second"),
        (lambda: samplers.restart(process, (0.5, 0.1)), "restart_levels.*ascending"),
        (lambda: samplers.restart(process, restarts=0), "restarts"),
        (lambda: schedules.edm(1.0, 0.5), "sigma_min=1.0 must be positive and less"),
        (lambda: schedules.zero_terminal_snr(VP), "concrete chain"),
    ):
        with pytest.raises(InputError, match=words):
            call()
