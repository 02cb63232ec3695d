"""Reverse-time solvers and correctors: orders on exact scores, printed algorithms, and what correcting brings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from diffjax import predictions, processes, reference, samplers, schedules
from diffjax.errors import InputError
from diffjax.predictions import Prediction

M0, S2 = 0.7, 0.25  # mean and variance of the 1-D Gaussian data
SCHEDULES = {"vp": schedules.vp(), "sub_vp": schedules.sub_vp(), "ve": schedules.ve(0.2, 5.0)}
SOLVERS = {
    "euler_maruyama": samplers.euler_maruyama,
    "reverse_diffusion": samplers.reverse_diffusion,
    "ancestral": samplers.ancestral,
}


def law(schedule, t):
    """Mean and variance of x_t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * M0, alpha**2 * S2 + sigma**2


def optimal(schedule):
    """The exact score for x_0 ~ N(M0, S2)."""

    def predict(xt, t):
        mean, variance = (schedules.broadcast_to(v, xt) for v in law(schedule, t))
        return Prediction((mean - xt) / variance, "score")

    return predict


def give_noise(monkeypatch, noise):
    """Every draw of normals is this one, in the shape that is asked for."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.asarray(noise).reshape(shape))


def batched(predict):
    return lambda x, t: predict(x, jnp.broadcast_to(t, x.shape[:1]))


def one(stepper, predict, x, t, s, key=0):
    """x after one step."""
    return jax.jit(lambda t, s: stepper.step(jax.random.key(key), predict, stepper.init(x), t, s).x)(t, s)


# Orders, on steps above s = 0, the last step being its own matter ----------------------------------------------------

END = 0.02


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_weak_order_on_gaussian_data(monkeypatch, schedule, name):
    # x_s = a x_t + b + c z there. From (a, b, c) at every step follow the chain's mean and variance, without chance.
    schedule, sizes = SCHEDULES[schedule], (256, 512, 1024)
    give_noise(monkeypatch, [0.0, 0.0, 1.0])
    with jax.enable_x64(True):
        stepper, predict = SOLVERS[name](processes.gaussian(schedule)), optimal(schedule)
        grids = [np.linspace(1, END, n + 1) for n in sizes]
        starts, ends = (jnp.asarray(np.concatenate(v)) for v in zip(*((g[:-1], g[1:]) for g in grids), strict=True))
        probes = jnp.array([[0.0], [1.0], [0.0]])
        b, ab, bc = np.asarray(
            jax.jit(jax.vmap(lambda t, s: one(stepper, predict, probes, t, s)[:, 0]))(starts, ends)
        ).T
        # The truth is p(x_s | x_1), s the end: the two are jointly Gaussian, with covariance alpha_{1|s} var x_s.
        x1 = 1.5 * schedule.prior_std
        (m, v), (m1, v1) = (np.float64(law(schedule, t)) for t in (END, 1.0))
        gain = float(schedule.alpha(1.0) / schedule.alpha(END)) * v / v1
        truth = [m + gain * (x1 - m1), v - gain**2 * v1]
    errors = []
    for steps in np.split(np.stack([ab - b, b, bc - b], -1), np.cumsum(sizes)[:-1]):
        mean, variance = x1, 0.0
        for a, b, c in steps:
            mean, variance = a * mean + b, a * a * variance + c * c
        errors.append(np.abs(np.array([mean, variance]) - truth))
    if name == "ancestral" or (name, schedule) == ("reverse_diffusion", SCHEDULES["ve"]):
        # The posterior's mean, with the exact mean of x_0 in it, is that of p(x_s | x_t).
        assert errors[-1][0] < 1e-10
        errors = np.array(errors)[:, 1:]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(slopes - 1) < 0.1).all(), (errors, slopes)
    assert (errors[-1] < 0.01).all(), errors


W, M, S = np.array([0.4, 0.6]), np.array([1.0, -0.8]), np.array([0.7, 0.8])


def cdf(x, schedule, t):
    alpha, sigma = np.float64(schedule.alpha(t)), np.float64(schedule.sigma(t))
    spread = np.sqrt(alpha**2 * S**2 + sigma**2)
    return (W * scipy.stats.norm.cdf(np.asarray(x)[..., None], alpha * M, spread)).sum(-1)


def mixture(dtype=float):
    return reference.GaussianMixture(*(jnp.asarray(a, dtype) for a in (W, M[:, None], S[:, None, None] ** 2)))


@pytest.mark.fast(1)
@pytest.mark.parametrize(("name", "order", "last"), [("ddim", 1, 0.02), ("heun", 2, 1e-3)])
@pytest.mark.parametrize("schedule", ["sub_vp", "ve"])
def test_order_of_the_flow(schedule, name, order, last):
    # In one dimension the flow keeps every quantile where it is: no equation need be solved for the truth.
    schedule = SCHEDULES[schedule]
    x1 = schedule.prior_std * np.linspace(-2, 2, 9)
    with jax.enable_x64(True):
        exact = [
            scipy.optimize.brentq(lambda x, p=p: cdf(x, schedule, END) - p, -20, 20, xtol=1e-13)
            for p in cdf(x1, schedule, 1.0)
        ]
        stepper, predict = getattr(samplers, name)(processes.gaussian(schedule)), mixture().predict(schedule)
        step = jax.jit(lambda x, t, s: one(stepper, predict, x, t, s))
        errors = []
        for n in (32, 64, 128):
            x = jnp.asarray(x1)[:, None]
            for t, s in itertools.pairwise(np.linspace(1, END**0.5, n + 1) ** 2):
                x = step(x, t, s)
            errors.append(np.sqrt(((np.asarray(x)[:, 0] - exact) ** 2).mean()))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(slopes - order) < 0.15).all(), (errors, slopes)
    assert errors[-1] < last


@pytest.mark.fast(1)
@pytest.mark.parametrize("other", ["ancestral", "euler_maruyama"])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_solvers_agree_to_first_order(monkeypatch, schedule, other):
    # Ancestral sampling is a discretisation of the reverse-time equation: against `reverse_diffusion`, given the same
    # noise, a step of dt differs by O(dt²) in its mean and by O(dt^1.5) in its noise.
    schedule, dt = SCHEDULES[schedule], np.array([4e-3, 2e-3, 1e-3])
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 8, 1)), 2, axis=0)
    give_noise(monkeypatch, np.arange(2.0)[:, None] * np.ones(8))  # none for the first half, 1 for the second
    with jax.enable_x64(True):
        process, predict = processes.gaussian(schedule), mixture().predict(schedule)

        def step(make, s):
            return one(make(process), predict, jnp.asarray(x).reshape(16, 1), 0.5, s).reshape(x.shape)

        a, b = (
            np.asarray(jax.jit(jax.vmap(lambda s, make=make: step(make, s)))(jnp.asarray(0.5 - dt)))
            for make in (samplers.reverse_diffusion, SOLVERS[other])
        )
    gap = np.abs(b - a - [[[[0.0]], [[1.0]]]] * (b - a)[:, :1]).mean((2, 3))  # (dt, mean or noise)
    assert (gap[-1] < 0.02 * np.abs(a - x).mean((2, 3))[-1]).all()
    mean, noise = gap.T
    np.testing.assert_allclose(np.log2(noise[:-1] / noise[1:]), 1.5, atol=0.05)
    if (schedule, other) == (SCHEDULES["ve"], "ancestral"):  # whose means are the same
        assert mean[0] < 1e-12
    else:
        np.testing.assert_allclose(np.log2(mean[:-1] / mean[1:]), 2.0, atol=0.05)


# Printed algorithms ----------------------------------------------------------------------------------------------


def beta(t):
    return 0.1 + 19.9 * t


def rate(t):
    return 0.1 * t + 9.95 * t * t


def test_against_the_printed_solvers(monkeypatch):
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    give_noise(monkeypatch, z)
    predict = predictions.score(lambda xt, t: -0.3 * xt + t[:, None])
    t, s = 0.6, 0.45
    score = -0.3 * x + t
    # name of schedule -> f/x and g² of table 1 there, in numbers
    sigma = 0.2 * (5.0 / 0.2) ** t
    below = 0.2 * (5.0 / 0.2) ** s
    terms = {
        "vp": (-0.5 * beta(t), beta(t)),
        "sub_vp": (-0.5 * beta(t), beta(t) * (1 - np.exp(-2 * rate(t)))),
        "ve": (0.0, 2 * sigma**2 * np.log(5.0 / 0.2)),
    }

    def batched(xt, t):
        return predict(xt, jnp.broadcast_to(t, xt.shape[:1]))

    with jax.enable_x64(True):
        for name, (f, g2) in terms.items():
            got = one(samplers.euler_maruyama(processes.gaussian(SCHEDULES[name])), batched, jnp.asarray(x), t, s)
            want = x - (f * x - g2 * score) * (t - s) + np.sqrt(g2 * (t - s)) * z
            np.testing.assert_allclose(got, want, rtol=1e-10)

        got = one(samplers.reverse_diffusion(processes.gaussian(SCHEDULES["ve"])), batched, jnp.asarray(x), t, s)
        added = sigma**2 - below**2
        np.testing.assert_allclose(got, x + added * score + np.sqrt(added) * z, rtol=1e-10)

        chain = samplers.reverse_diffusion(processes.gaussian(schedules.linear()))
        b = np.linspace(1e-4, 0.02, 1000)[599]
        got = one(chain, batched, jnp.asarray(x), 0.6, 0.599)
        np.testing.assert_allclose(got, (2 - np.sqrt(1 - b)) * x + b * score + np.sqrt(b) * z, rtol=1e-6)
        got = one(chain, batched, jnp.asarray(x), 0.001, 0.0)
        first = -0.3 * x + 0.001
        np.testing.assert_allclose(got, (2 - np.sqrt(1 - 1e-4)) * x + 1e-4 * first, rtol=1e-6)


@pytest.mark.parametrize(("schedule", "event"), [("ve", (2,)), ("vp", (2,)), ("sub_vp", (4, 4, 3))])
def test_against_the_printed_corrector(monkeypatch, schedule, event):
    rng = np.random.default_rng(2)
    x, z, t, s = rng.normal(size=(5, *event)), rng.normal(size=(5, *event)), 0.5, 0.4
    give_noise(monkeypatch, z)
    alpha = 1.0 if schedule == "ve" else np.exp(rate(s) - rate(t))  # 1 - β, over the step
    want = x.copy()
    for _ in range(2):
        grad = np.sin(want) - want
        norm = np.linalg.norm(grad.reshape(5, -1), axis=-1).mean()
        h = 2 * alpha * (0.3 * scipy.stats.chi(np.prod(event)).mean() / norm) ** 2
        want = want + h * grad + np.sqrt(2 * h) * z
    with jax.enable_x64(True):
        process = processes.gaussian(SCHEDULES[schedule])
        stepper = samplers.predictor_corrector(process, samplers.still(process), 0.3, 2)
        predict = predictions.score(lambda xt, t: jnp.sin(xt) - xt)
        np.testing.assert_allclose(one(stepper, predict, jnp.asarray(x), t, s), want, rtol=1e-10)

        # Then the predictor steps, from the corrected x.
        stepper = samplers.predictor_corrector(process, samplers.ddim(process), 0.3, 2)
        got = one(stepper, predict, jnp.asarray(x), t, s)
        np.testing.assert_allclose(got, one(samplers.ddim(process), predict, jnp.asarray(want), t, s), rtol=1e-10)


def test_the_corrector_s_mean_leaves_out_what_is_not_finite(monkeypatch):
    x = np.random.default_rng(2).normal(size=(5, 2))
    give_noise(monkeypatch, np.zeros((5, 2)))
    grad = np.sin(x) - x
    kept = np.array([0, 2, 3])
    h = 2 * (0.3 * scipy.stats.chi(2).mean() / np.linalg.norm(grad[kept], axis=1).mean()) ** 2
    x[1, 0], x[4, 1] = np.nan, np.inf
    process = processes.gaussian(SCHEDULES["ve"])
    stepper = samplers.predictor_corrector(process, samplers.still(process), 0.3)
    predict = predictions.score(lambda xt, t: jnp.sin(xt) - xt)
    got = one(stepper, predict, jnp.asarray(x), 0.5, 0.4)
    np.testing.assert_allclose(got[kept], (x + h * grad)[kept], rtol=1e-5)


# What they do ----------------------------------------------------------------------------------------------------


@pytest.mark.fast(1)
@pytest.mark.parametrize("schedule", ["vp", "ve"])
def test_stationary_variance_of_the_corrector(schedule):
    # With N(0, v) as target and V the chain's variance, mean ‖∇log p‖ = √V E‖z‖/v gives h = 2 alpha² snr² v²/V, and
    # V = v/(1 - h/(2v)) then says V = v (1 + alpha² snr²). Standard error: V √(2/n).
    n, t, s, snr = 100_000, 0.6, 0.5, 0.8
    process = processes.gaussian(SCHEDULES[schedule])
    variance = law(process.schedule, t)[1]
    stepper = samplers.predictor_corrector(process, samplers.still(process), snr, 30)
    predict = predictions.score(lambda xt, t: -xt / variance)
    x = jax.jit(lambda key: samplers.denoise(stepper, predict, key, jnp.ones((n // 2, 2)), jnp.array([t, s])))(
        jax.random.key(0)
    )
    kept = (process.schedule.alpha(t) / process.schedule.alpha(s)) ** 2
    np.testing.assert_allclose(np.float64(x).var(), variance * (1 + kept * snr**2), rtol=5 * np.sqrt(2 / n))


def energy(x):
    """Energy distance of draws x from the mixture, 2 ∫ (F_n - F)², in units of 2/n ∫ F(1 - F), its mean if they are."""
    grid = np.linspace(-8, 8, 16001)
    truth = cdf(grid, SCHEDULES["vp"], 0.0)  # of x_0 itself: alpha is 1 and sigma 0
    empirical = np.searchsorted(np.sort(x), grid, side="right") / len(x)
    return ((empirical - truth) ** 2).sum() / (truth * (1 - truth)).sum() * len(x)


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "name"), [("vp", "reverse_diffusion"), ("ve", "ancestral"), ("vp", "ddim")])
def test_correcting_helps_on_a_coarse_grid(schedule, name):
    # 16 steps, energy distances in units of that of exact draws. A corrector of snr 1e-6 moves nothing.
    n, times = 20_000, jnp.linspace(1, 0, 17)
    process = processes.gaussian({"vp": schedules.vp(), "ve": schedules.ve(0.01, 20.0)}[schedule])
    predict = mixture().predict(process.schedule)
    predictor = samplers.denoised(process, {**SOLVERS, "ddim": samplers.ddim}[name](process))

    @jax.jit
    def run(snr):
        stepper = samplers.predictor_corrector(process, predictor, snr)
        return samplers.sample(stepper, predict, jax.random.key(1), times, (n, 1))

    alone, corrected = (energy(np.float64(run(snr))[:, 0]) for snr in (1e-6, 0.16))
    assert corrected < 0.5 * alone


# The last step, what is compiled, bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "name"), list(zip(SCHEDULES, SOLVERS, strict=True)))
def test_only_the_last_step_has_no_noise(schedule, name):
    process = processes.gaussian(SCHEDULES[schedule])
    stepper, predict, x = SOLVERS[name](process), optimal(process.schedule), jnp.array([[0.3], [-0.2]])
    step = jax.jit(lambda s, key: stepper.step(key, predict, stepper.init(x), jnp.asarray(0.1), s).x)
    for s, equal in ((0.0, True), (0.01, False)):
        a, b = (np.asarray(step(s, jax.random.key(i))) for i in range(2))
        assert (a == b).all() if equal else np.abs(a - b).min() > 1e-4


@pytest.mark.parametrize("schedule", ["vp", "ve"])
def test_denoised_ends_on_the_estimate(schedule):
    process, x = processes.gaussian(SCHEDULES[schedule]), jnp.array([[0.3], [-0.2]])
    predict, inner = optimal(process.schedule), samplers.euler_maruyama(process)
    stepper = samplers.denoised(process, inner)
    state = jax.jit(lambda s: stepper.step(jax.random.key(0), predict, stepper.init(x), jnp.asarray(0.05), s))(0.0)
    alpha, (mean, variance) = float(process.schedule.alpha(0.05)), np.float64(law(process.schedule, 0.05))
    want = M0 + alpha * S2 / variance * (np.float64(x) - mean)  # E[x_0 | x_t]
    np.testing.assert_allclose(state.x, want, rtol=1e-5)
    np.testing.assert_array_equal(state.x, state.x0)
    np.testing.assert_allclose(one(stepper, predict, x, 0.05, 0.02), one(inner, predict, x, 0.05, 0.02), rtol=1e-5)


@pytest.mark.fast(1)
@pytest.mark.parametrize(("name", "kind"), [("euler_maruyama", "eps"), ("reverse_diffusion", "x0"), ("corrector", "v")])
def test_any_kind_of_prediction_serves(name, kind):
    process = processes.gaussian(SCHEDULES["vp"])
    corrector = samplers.predictor_corrector(process, samplers.still(process))
    stepper = corrector if name == "corrector" else SOLVERS[name](process)
    scored, x = optimal(process.schedule), jnp.array([[2.0], [-0.7]])

    def predict(xt, t):
        return Prediction(predictions.convert(scored(xt, t), kind, process, xt, t), kind)

    got, want = (one(stepper, f, x, 0.6, 0.5) for f in (predict, scored))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_corrector_costs_one_evaluation():
    # Correcting and predicting ask for the score at the same corrected x, and langevin's kernel for one at its end:
    # compiled, a step has two evaluations, as published. A sort stands for the network, since it is easy to count.
    process = processes.gaussian(schedules.vp())
    stepper = samplers.predictor_corrector(process, samplers.reverse_diffusion(process))
    predict = predictions.eps(lambda xt, t: jnp.sort(xt))
    run = jax.jit(lambda key: samplers.sample(stepper, predict, key, jnp.linspace(1, 0, 11), (2, 3)))
    assert run.lower(jax.random.key(0)).compile().as_text().count(" sort(") == 2


def test_bad_input():
    process, bits = processes.gaussian(SCHEDULES["vp"]), processes.binomial(schedules.linear(10))
    for name, make in {
        "euler_maruyama": samplers.euler_maruyama,
        "reverse_diffusion": samplers.reverse_diffusion,
        "predictor_corrector": lambda process: samplers.predictor_corrector(process, samplers.ancestral(process)),
        "denoised": lambda gaussian: samplers.denoised(gaussian, samplers.euler_maruyama(process)),
    }.items():
        with pytest.raises(InputError, match=f"{name} needs a Gaussian process"):
            make(bits)
        with pytest.raises(InputError, match="'logits'"):
            one(make(process), predictions.logits(lambda xt, t: xt), jnp.ones((2, 1)), 0.5, 0.0)
    for snr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="snr must be positive"):
            samplers.predictor_corrector(process, samplers.still(process), snr)
    with pytest.raises(InputError, match="num_steps"):
        samplers.predictor_corrector(process, samplers.still(process), num_steps=0)


STEPPERS = SOLVERS | {
    "denoised": lambda process: samplers.denoised(process, samplers.euler_maruyama(process)),
    "corrector": lambda process: samplers.predictor_corrector(process, samplers.reverse_diffusion(process), 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_gradients_to_the_schedule_are_those_of_differences(kind):
    """Also of the step to s = 0, where a root or a logarithm of the noise has none."""
    makes = {
        "vp": lambda a: schedules.vp(0.1, 20.0 * a),
        "sub_vp": lambda a: schedules.sub_vp(0.1, 20.0 * a),
        "ve": lambda a: schedules.ve(0.2 * a, 5.0),
        "chain": lambda a: schedules.from_betas(a * jnp.array([0.02, 0.2, 0.4])),
    }
    steppers = STEPPERS | ({"annealed": lambda p: samplers.annealed_langevin(p, 0.01, 2)} if kind == "ve" else {})

    def ends(a):
        process, found = processes.gaussian(makes[kind](a)), []
        predict = optimal(process.schedule)
        for weight, make in enumerate(steppers.values(), 1):
            stepper, x = make(process), jnp.array([[0.3], [-0.2]])
            for t, s in ((2 / 3, 1 / 3), (1 / 3, 0.0)):
                found.append(weight * stepper.step(jax.random.key(0), batched(predict), stepper.init(x), t, s).x.sum())
        return sum(found)

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(ends))
        (below, _), (_, slope), (above, _) = (run(a) for a in (0.999, 1.0, 1.001))
        np.testing.assert_allclose(slope, (above - below) / 0.002, rtol=1e-4, atol=1e-5)
