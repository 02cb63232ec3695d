"""Samplers with exact predictors: orders of convergence, exact recursions of the chains, and the driver's promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from diffjax import predictions, processes, reference, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

S2 = 0.25  # variance of the 1-D Gaussian data
LINEAR = processes.gaussian(schedules.linear())
GRID = LINEAR.schedule.times
KEY = jax.random.key(0)


def optimal(schedule, log_var=None):
    """E[eps | x_t] for x_0 ~ N(0, S2)."""

    def predict(xt, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        value = schedules.broadcast_to(sigma / (alpha**2 * S2 + sigma**2), xt) * xt
        return Prediction(value, "eps", None if log_var is None else jnp.full_like(xt, log_var))

    return predict


def alpha_bars(times):
    """ᾱ of the linear schedule at grid times, float64."""
    table = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    return table[np.round(np.asarray(times, np.float64) * 1000).astype(int)]


# Orders ----------------------------------------------------------------------------------------------------------

W, M = np.array([0.4, 0.6]), np.array([[1.0, 0.3], [-0.8, -0.4]])
C = np.array([[[0.6, 0.1], [0.1, 0.5]], [[0.5, 0.0], [0.0, 0.8]]])


def flow(t, x):
    """dx/dt = -½β(x + score) of vp (Song et al. 2021, eq. 13) for the mixture, in numpy."""
    x = x.reshape(-1, 2)
    rate = 0.1 * t + 9.95 * t * t
    a, s2 = np.exp(-0.5 * rate), -np.expm1(-rate)
    top, bottom = 0.0, 0.0
    for w, m, c in zip(W, M, C, strict=True):
        cov = a * a * c + s2 * np.eye(2)
        r = np.linalg.solve(cov, (x - a * m).T).T
        q = w * np.exp(-0.5 * ((x - a * m) * r).sum(1)) / np.sqrt(np.linalg.det(cov))
        top, bottom = top - q[:, None] * r, bottom + q
    return (-0.5 * (0.1 + 19.9 * t) * (x + top / bottom[:, None])).ravel()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "order", "last"), [("ddim", 1, 0.01), ("heun", 2, 2e-4), ("dpmpp_2m", 2, 1e-4)])
def test_order_of_convergence(name, order, last):
    # Times t ∝ i² crowd towards 0, where the last step is of first order for everyone. Slopes over 32..256 steps.
    x1 = np.random.default_rng(0).normal(size=(16, 2))
    exact = scipy.integrate.solve_ivp(flow, (1, 0), x1.ravel(), rtol=1e-10, atol=1e-10, method="DOP853").y[:, -1]
    with jax.enable_x64(True):
        process = processes.gaussian(schedules.vp())
        predict = reference.GaussianMixture(*(jnp.asarray(a) for a in (W, M, C))).predict(process.schedule)
        stepper = getattr(samplers, name)(process)
        errors = []
        for n in (32, 64, 128, 256):
            times = jnp.linspace(1, 0, n + 1) ** 2
            x = samplers.denoise(stepper, predict, jax.random.key(0), jnp.asarray(x1), times)
            errors.append(np.sqrt(((np.asarray(x).ravel() - exact) ** 2).mean()))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(slopes[1:] - order) < 0.1).all(), (errors, slopes)
    assert errors[-1] < last


def numpy_sampler(name, x, times):
    """DDIM (Song et al. 2021, eq. 12) and DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) on Gaussian data."""
    ab = alpha_bars(times)
    old = None
    for i, (t, s) in enumerate(itertools.pairwise(ab)):
        x0 = np.sqrt(t) * S2 / (t * S2 + 1 - t) * x
        eps = (x - np.sqrt(t) * x0) / np.sqrt(1 - t)
        if name == "ddim" or s == 1:  # both are x_0 at the end
            x = np.sqrt(s) * x0 + np.sqrt(1 - s) * eps
            continue
        lam_t, lam_s = 0.5 * np.log(t / (1 - t)), 0.5 * np.log(s / (1 - s))
        h = lam_s - lam_t
        d = x0
        if i > 0:
            r = (lam_t - old[0]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * old[1]
        x = np.sqrt(1 - s) / np.sqrt(1 - t) * x - np.sqrt(s) * (np.exp(-h) - 1) * d
        old = (lam_t, x0)
    return x


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_against_the_printed_algorithm(name, steps):
    # Few, uneven steps, where first and last steps and the extrapolation's ratio all show.
    times = np.round((np.arange(steps + 1)[::-1] / steps) ** 1.7 * 1000) / 1000
    x1 = np.array([[2.0], [-0.7]])
    got = samplers.denoise(
        getattr(samplers, name)(LINEAR),
        optimal(LINEAR.schedule),
        jax.random.key(0),
        jnp.asarray(x1, jnp.float32),
        jnp.asarray(times),
    )
    np.testing.assert_allclose(got, numpy_sampler(name, x1, times), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("ancestral", "v"), ("ddim", "x0"), ("heun", "x0"), ("heun", "score"), ("heun", "v"), ("dpmpp_2m", "x0")],
)
def test_any_kind_of_prediction_serves(name, kind):
    # x_0 is divided by sigma = 0 if the step to s = 0 is careless.
    inner = optimal(LINEAR.schedule)

    def predict(xt, t):
        return Prediction(predictions.convert(inner(xt, t), kind, LINEAR, xt, t), kind)

    stepper, x1 = getattr(samplers, name)(LINEAR), jnp.array([[2.0], [-0.7]])
    times = samplers.spaced(GRID, 20)
    got, want = (samplers.denoise(stepper, f, jax.random.key(0), x1, times) for f in (predict, inner))
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4)


# Chains on Gaussian data -----------------------------------------------------------------------------------------


def recursion(times, kernel):
    """Variance of x along the chain, float64, after every step; `kernel` is a name of variance, or DDIM's eta."""
    ab, out, v = alpha_bars(times), [], 1.0
    for t, s in itertools.pairwise(ab):
        beta = 1 - t / s
        posterior = beta * (1 - s) / (1 - t)
        x0 = np.sqrt(t) * S2 / (t * S2 + 1 - t)  # x̂_0 = x0 · x_t
        if isinstance(kernel, str):
            gain = np.sqrt(t / s) * (1 - s) / (1 - t) + np.sqrt(s) * beta / (1 - t) * x0
            noise = (
                0.0
                if s == 1
                else {"posterior": posterior, "forward": beta, "learned": np.sqrt(beta * posterior)}[kernel]
            )
        else:
            noise = kernel**2 * posterior
            gain = np.sqrt(s) * x0 + np.sqrt(1 - s - noise) * (1 - np.sqrt(t) * x0) / np.sqrt(1 - t)
        v = gain**2 * v + noise
        out.append(v)
    return np.array(out)


KERNELS = {"posterior": "posterior", "forward": "forward", "learned": "learned", "ddim 1": 1.0, "ddim 0.5": 0.5}


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(KERNELS))
def test_variance_recursion(name):
    kernel, n = KERNELS[name], 100_000
    times = samplers.spaced(GRID, 25)
    stepper = samplers.ancestral(LINEAR, kernel) if isinstance(kernel, str) else samplers.ddim(LINEAR, kernel)
    run = jax.jit(
        lambda key: samplers.sample(
            stepper, optimal(LINEAR.schedule, 0.5), key, times, (n, 1), lambda state: state.x.var()
        )
    )
    x, saved = run(jax.random.key(0))
    want = recursion(times, kernel)
    np.testing.assert_allclose(saved, want, rtol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.float64(x).var(), want[-1], rtol=5 * np.sqrt(2 / n))
    assert abs(np.float64(x).mean()) < 5 * np.sqrt(want[-1] / n)
    # The error bars tell the kernels apart, and DDIM at eta = 1 is the ancestral posterior.
    finals = {k: recursion(times, v)[-2] for k, v in KERNELS.items()}
    np.testing.assert_allclose(finals["ddim 1"], finals["posterior"], rtol=1e-10)
    gaps = np.abs(np.diff(sorted({round(v, 9) for v in finals.values()})))
    assert gaps.min() > 5 * np.sqrt(2 / n) * finals["forward"]


@pytest.mark.slow
def test_whole_ddpm_chain_returns_the_data():
    n = 10_000
    x = jax.jit(
        lambda key: samplers.sample(samplers.ancestral(LINEAR), optimal(LINEAR.schedule), key, GRID[::-1], (n, 1))
    )(jax.random.key(1))
    want = recursion(np.arange(1001)[::-1] / 1000, "posterior")[-1]
    assert abs(want - S2) < 0.02 * S2
    np.testing.assert_allclose(np.float64(x).var(), want, rtol=5 * np.sqrt(2 / n))


def test_mixture_weights_and_means():
    # ⅓ N(1.5, 0.2²) + ⅔ N(-1, 0.4²) through 1000 ancestral steps; the exact predictor is written out here.
    w, m, s = jnp.array([1 / 3, 2 / 3]), jnp.array([1.5, -1.0]), jnp.array([0.2, 0.4])
    schedule, n = LINEAR.schedule, 10_000

    def network(xt, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        var = alpha**2 * s**2 + sigma**2
        r = jax.nn.softmax(jnp.log(w) - 0.5 * jnp.log(var) - 0.5 * (xt - alpha * m) ** 2 / var, -1)
        return (r * sigma * (xt - alpha * m) / var).sum(-1, keepdims=True)

    x = jax.jit(
        lambda key: samplers.sample(samplers.ancestral(LINEAR), predictions.eps(network), key, GRID[::-1], (n, 1))
    )(jax.random.key(2))
    x = np.float64(x)[:, 0]
    right = x[x > 0.6]
    assert abs(len(right) / n - 1 / 3) < 5 * np.sqrt(2 / 9 / n)
    assert abs(right.mean() - 1.5) < 5 * 0.2 / np.sqrt(len(right)) + 2e-3
    assert abs(x[x < 0.6].mean() + 1) < 5 * 0.4 / np.sqrt(n - len(right)) + 2e-3

    def cdf(v):
        return scipy.stats.norm.cdf(v, 1.5, 0.2) / 3 + scipy.stats.norm.cdf(v, -1, 0.4) * 2 / 3

    assert scipy.stats.kstest(x, cdf).statistic < 2.5 / np.sqrt(n) + 5e-3


# The driver ------------------------------------------------------------------------------------------------------

STEPPERS = {
    "ancestral": samplers.ancestral,
    "ddim": samplers.ddim,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STEPPERS))
def test_last_step_is_noise_free_and_lands_on_the_estimate(name):
    stepper, x = STEPPERS[name](LINEAR), jnp.array([[0.3], [-0.2]])
    predict = optimal(LINEAR.schedule)
    runs = [
        samplers.denoise(stepper, predict, jax.random.key(i), x, GRID[jnp.array([5, 0])], lambda s: s) for i in range(2)
    ]
    (got, state), (again, _) = runs
    np.testing.assert_array_equal(got, again)
    t = 0.005
    ab = alpha_bars([t])[0]
    estimate = np.sqrt(ab) * S2 / (ab * S2 + 1 - ab) * np.float64(x)
    np.testing.assert_allclose(got, estimate, rtol=1e-5)
    np.testing.assert_allclose(state.x0[-1], estimate, rtol=1e-5)
    np.testing.assert_allclose(state.log_snr[-1], np.log(ab / (1 - ab)), rtol=1e-5)
    if name == "ancestral":  # and every other step has noise
        a, b = (samplers.denoise(stepper, predict, jax.random.key(i), x, GRID[jnp.array([500, 400])]) for i in range(2))
        assert np.abs(a - b).min() > 1e-3


@pytest.mark.slow
def test_save_keeps_the_path():
    times = samplers.spaced(GRID, 10)
    args = (samplers.ancestral(LINEAR), optimal(LINEAR.schedule), jax.random.key(3))
    x, path = samplers.sample(*args, times, (4, 1), lambda state: (state.x, state.x0))
    np.testing.assert_allclose(x, samplers.sample(*args, times, (4, 1)), rtol=1e-5)
    assert path[0].shape == path[1].shape == (10, 4, 1)
    np.testing.assert_array_equal(path[0][-1], x)
    # row i of x0 is the estimate made at times[i] from the x before the step: row i - 1 of x
    ab = alpha_bars(times)[1:10, None, None]
    np.testing.assert_allclose(path[1][1:], np.sqrt(ab) * S2 / (ab * S2 + 1 - ab) * path[0][:-1], rtol=1e-3, atol=1e-4)
    half, _ = samplers.sample(*args, times[:6], (4, 1), lambda state: None)
    np.testing.assert_allclose(half, path[0][4], rtol=1e-6)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m"])
def test_memory_does_not_grow_with_the_steps(name):
    process = processes.gaussian(schedules.vp())
    shape = (8, 64, 64)

    def temporary(steps):
        f = jax.jit(
            lambda key: samplers.sample(
                STEPPERS[name](process), optimal(process.schedule), key, jnp.linspace(1, 0, steps + 1), shape
            )
        )
        return f.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    one_image_batch = 4 * 8 * 64 * 64
    few, many = temporary(10), temporary(1000)
    assert few > one_image_batch and many < few + one_image_batch


def identity(process):
    """A stepper that does nothing: what comes out is what went in."""
    return samplers.ddim(process)._replace(step=lambda key, predict, state, t, s: state)


def test_sample_starts_from_the_prior():
    x = samplers.sample(identity(LINEAR), optimal(LINEAR.schedule), jax.random.key(4), GRID[::-1], (100_000, 1))
    assert scipy.stats.kstest(np.asarray(x)[:, 0], "norm").pvalue > 1e-6


@pytest.mark.slow
def test_interpolate():
    a, b, times = jnp.array([1.5, -1.0]), jnp.array([0.2, 0.6]), samplers.spaced(GRID, 10)[2:]
    weights = jnp.array([0.0, 0.25, 1.0])
    predict = optimal(LINEAR.schedule)
    for stepper in (samplers.ddim(LINEAR), samplers.ancestral(LINEAR)):
        row = samplers.interpolate(LINEAR, stepper, predict, jax.random.key(5), a, b, weights, times)
        # On Gaussian data decoding is affine in x_t; with the chain's noise shared, λ mixes the decoded ends.
        np.testing.assert_allclose(row[1], 0.75 * row[0] + 0.25 * row[2], rtol=1e-4, atol=1e-5)
        alone = samplers.interpolate(LINEAR, stepper, predict, jax.random.key(5), a, b, weights[:1], times)
        np.testing.assert_allclose(alone[0], row[0], rtol=1e-5)
    # From next to no noise the ends decode to a and b themselves.
    near = samplers.interpolate(
        LINEAR, samplers.ddim(LINEAR), predict, jax.random.key(5), a, b, weights, jnp.array([1e-6, 0.0])
    )
    np.testing.assert_allclose(near, np.stack([a, 0.75 * a + 0.25 * b, b]), atol=0.01)

    # Both ends are noised to times[0], independently.
    def ends(key):
        return samplers.interpolate(LINEAR, identity(LINEAR), predict, key, a, b, jnp.array([0.0, 1.0]), times)

    n = 20_000
    x = np.float64(jax.jit(jax.vmap(ends))(jax.random.split(jax.random.key(6), n)))
    ab = alpha_bars(times)[0]
    assert (np.abs(x.mean(0) - np.sqrt(ab) * np.stack([a, b])) < 5 * np.sqrt((1 - ab) / n)).all()
    np.testing.assert_allclose(x.var(0), 1 - ab, rtol=5 * np.sqrt(2 / n))
    assert np.abs(np.corrcoef(x.reshape(n, 4).T) - np.eye(4)).max() < 6 / np.sqrt(n)


# Gradients, types, eager calls --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gradient_in_the_schedule_and_in_eta():
    # x̂_0 = 0.5 x + 0.3 from x_1 = 1: the step to s = 0, where sigma is 0, has a gradient as any other.
    def ends(parameters):
        process = processes.gaussian(schedules.from_betas(parameters[:2]))
        whole, one = jnp.array([1.0, 0.5, 0.0]), jnp.array([1.0, 0.0])
        runs = [(make(process), whole) for make in STEPPERS.values()]
        runs += [(samplers.ancestral(process), one), (samplers.ddim(process, parameters[2]), whole)]
        predict, x = predictions.x0(lambda x, t: 0.5 * x + 0.3), jnp.ones((1, 1))
        return jnp.stack([samplers.denoise(stepper, predict, KEY, x, times)[0, 0] for stepper, times in runs])

    with jax.enable_x64(True):
        f, gradient = jax.jit(ends), jax.jit(jax.grad(lambda parameters, i: ends(parameters)[i]))
        ddim = list(STEPPERS).index("ddim")
        for eta in (0.5, 0.0):  # traced, as a number; at 0 its gradient is √β̃ z and not 0
            parameters = jnp.array([0.1, 0.4, eta])
            slopes = np.stack([gradient(parameters, i) for i in range(6)])
            h = 1e-6 * np.eye(3)
            differences = np.stack([f(parameters + step) - f(parameters - step) for step in h], 1) / 2e-6
            np.testing.assert_allclose(slopes, differences, atol=1e-8)
            np.testing.assert_allclose(slopes[ddim], [0.28304, 0.02022, 0.0], atol=1e-5)
            assert abs(slopes[-1, 2]) > 0.01
        np.testing.assert_allclose(f(parameters)[-1], f(parameters)[ddim], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "wide", "tolerance"), [("bfloat16", False, 0.05), ("float16", False, 5e-3), ("float32", True, 1e-4)]
)
def test_types(dtype, wide, tolerance):
    # x and the network's output are of `dtype`, without any promotion by jax itself. The truth is float64 from that x.
    x = jnp.array([[2.0], [-0.7]], dtype)

    def ends(x, dtype):
        process = processes.gaussian(schedules.cosine(50))

        def network(x, t):
            return (schedules.broadcast_to(jnp.sin(t), x) * x).astype(dtype)

        def end(name):
            times = jnp.array([0.5, 0.0]) if name == "ancestral" else samplers.spaced(process.schedule.times, 5)
            return samplers.denoise(STEPPERS[name](process), predictions.v(network), KEY, x, times)

        return [end(name) for name in STEPPERS]

    with jax.enable_x64(True):
        want = jax.jit(ends, static_argnums=1)(x.astype(float), "float64")
    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        got = jax.jit(ends, static_argnums=1)(x, dtype)
    for one, exact in zip(got, want, strict=True):
        assert one.dtype == np.float32 and exact.dtype == np.float64
        np.testing.assert_allclose(one, exact, rtol=tolerance)


def test_samples_are_of_the_type_of_the_times():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.float64):
            process, times = processes.gaussian(schedules.linear(4)), jnp.array([1.0, 0.5, 0.0], dtype)
            for stepper in (samplers.ancestral(process), samplers.ddim(process, 0.5)):
                args = (stepper, predictions.eps(lambda x, t: 0.5 * x), KEY, times, (2, 1))
                assert jax.eval_shape(lambda args=args: samplers.sample(*args)).dtype == dtype


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", [*STEPPERS, "interpolate"])
def test_eager_calls_compile_once(name, compilations):
    # Whatever is new at a call, closures or parameters: the program is not, and nothing is kept of a call.
    def run(slope, low):
        process = processes.gaussian(schedules.VP(low, 20.0))
        predict, times = predictions.eps(lambda x, t: slope * x), jnp.linspace(1, 0, 4)
        if name == "interpolate":
            ends = jnp.ones(2), jnp.zeros(2)
            return samplers.interpolate(process, samplers.ddim(process), predict, KEY, *ends, jnp.ones(3) / 2, times)
        return samplers.sample(STEPPERS[name](process), predict, KEY, times, (3, 2), lambda state: state.x.mean())

    numbers = jnp.array([[0.5, 0.1], [0.6, 0.2]])
    parameters = [tuple(row) for row in numbers]
    first = run(*parameters[0])
    compilations.clear()
    second = run(*parameters[1])
    assert not compilations
    assert np.abs(np.asarray(jax.tree.leaves(first)[0] - jax.tree.leaves(second)[0])).max() > 1e-3


def test_heun_keeps_its_digits_where_alpha_is_small():
    # alpha(1) = 4.9e-5 of the cosine schedule: x/alpha is 20,000 times x, and one rounding of eps is worth 4e-5 of x_s.
    x1 = np.array([[2.0], [-0.7]])

    def end(dtype):
        process = processes.gaussian(schedules.cosine())
        times = samplers.spaced(process.schedule.times, 50)
        run = jax.jit(lambda x: samplers.denoise(samplers.heun(process), optimal(process.schedule), KEY, x, times))
        return run(jnp.asarray(x1, dtype))

    single = end(jnp.float32)
    with jax.enable_x64(True):
        np.testing.assert_allclose(single, end(jnp.float64), rtol=5e-4)


def test_spaced_of_a_long_chain():
    times = schedules.linear(10_000).times
    for steps in (1, 7, 3333, 6667, 9_999, 10_000):
        index = np.round(np.float64(samplers.spaced(times, steps)) * 10_000).astype(int)
        assert set(-np.diff(index)) <= {10_000 // steps, -(-10_000 // steps)}
        assert index[0] == 10_000 and index[-1] == 0


@pytest.mark.parametrize("steps", [1, 3, 50, 999, 1000])
def test_spaced(steps):
    got = np.asarray(samplers.spaced(GRID, steps))
    assert len(got) == steps + 1 and got[0] == 1 and got[-1] == 0
    index = got.astype(np.float64) * 1000
    np.testing.assert_allclose(index, index.round(), atol=1e-3)
    gaps = -np.diff(index.round())
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(got, samplers.spaced(GRID[::-1], steps))


def test_bad_times_are_told_under_jit_too():
    predict, bad = optimal(LINEAR.schedule), jnp.array([0.0, 1.0])
    with pytest.raises(InputError, match="times"):
        jax.jit(lambda key: samplers.sample(samplers.ddim(LINEAR), predict, key, bad, (2, 1)))(jax.random.key(0))


def test_jit_takes_process_and_times_as_arguments():
    @jax.jit
    def run(process, times, key):
        return samplers.sample(samplers.ddim(process), optimal(process.schedule), key, times, (3, 1))

    times = samplers.spaced(GRID, 5)
    want = samplers.sample(samplers.ddim(LINEAR), optimal(LINEAR.schedule), jax.random.key(7), times, (3, 1))
    np.testing.assert_allclose(run(LINEAR, times, jax.random.key(7)), want, rtol=1e-5)
    # differentiable through the whole chain: DDIM on Gaussian data is x_0 = c x_1
    slope = jax.grad(
        lambda x: samplers.denoise(samplers.ddim(LINEAR), optimal(LINEAR.schedule), jax.random.key(0), x, times).sum()
    )(jnp.ones((1, 1)))
    np.testing.assert_allclose(slope, numpy_sampler("ddim", np.ones((1, 1)), times), rtol=1e-3)


@pytest.mark.parametrize(
    "times",
    [[0.0, 0.5, 1.0], [1.0, 0.5, 0.5, 0.0], [1.0], [[1.0, 0.0]], [1.0, float("nan"), 0.0], [1000, 500, 0], [1.0, -0.1]],
)
def test_bad_times(times):
    predict, times = optimal(LINEAR.schedule), jnp.array(times)
    with pytest.raises(InputError, match="times"):
        samplers.sample(samplers.ddim(LINEAR), predict, KEY, times, (2, 1))
    with pytest.raises(InputError, match="times"):
        samplers.denoise(samplers.ddim(LINEAR), predict, KEY, jnp.zeros((2, 1)), times)
    with pytest.raises(InputError, match="times"):
        ends = jnp.zeros(1), jnp.ones(1)
        samplers.interpolate(LINEAR, samplers.ddim(LINEAR), predict, KEY, *ends, jnp.ones(2), times)


def test_bad_spacing():
    for steps in (0, 1001):
        with pytest.raises(InputError, match="steps"):
            samplers.spaced(GRID, steps)
