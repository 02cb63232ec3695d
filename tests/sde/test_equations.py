"""Drift, diffusion and velocity against the papers' formulae, the moments' equations, and the continuity equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from diffjax import predictions, processes, reference, schedules, sde
from diffjax.errors import InputError

LOW, HIGH = 0.1, 20.0  # β of vp
SMALL, LARGE = 0.01, 50.0  # sigma of ve
BETAS = np.array([0.02, 0.3, 0.05, 0.6])
MAKE = {
    "vp": lambda: schedules.vp(LOW, HIGH),
    "sub_vp": lambda: schedules.sub_vp(LOW, HIGH),
    "ve": lambda: schedules.ve(SMALL, LARGE),
    "chain": lambda: schedules.from_betas(BETAS),  # its table has the precision of where it is made
}


def formulae(name, t):
    """drift rate, g², alpha and sigma of Song et al. 2021 (eqs. 25, 28 to 33), in float64."""
    beta, rate = LOW + t * (HIGH - LOW), LOW * t + 0.5 * t**2 * (HIGH - LOW)
    if name == "vp":
        return -0.5 * beta, beta, np.exp(-0.5 * rate), np.sqrt(-np.expm1(-rate))
    if name == "sub_vp":
        return -0.5 * beta, beta * -np.expm1(-2 * rate), np.exp(-0.5 * rate), -np.expm1(-rate)
    if name == "ve":
        sigma = SMALL * (LARGE / SMALL) ** t
        return 0 * t, 2 * sigma**2 * np.log(LARGE / SMALL), 1 + 0 * t, sigma
    # a chain: β constant within a step such that the step's alpha is √(1 - β_i)
    steps = -np.log1p(-BETAS)
    at = np.minimum(np.floor(t * len(BETAS)).astype(int), len(BETAS) - 1)
    rate = np.concatenate([[0.0], np.cumsum(steps)])[at] + (t * len(BETAS) - at) * steps[at]
    beta = len(BETAS) * steps[at]
    return -0.5 * beta, beta, np.exp(-0.5 * rate), np.sqrt(-np.expm1(-rate))


COEFFICIENTS = jax.jit(lambda s, t: (sde.drift_rate(s, t), sde.squared_diffusion(s, t), s.alpha(t), s.sigma(t)))


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(MAKE))
def test_coefficients_are_the_papers(name):
    rng = np.random.default_rng(0)
    t = np.float32(np.concatenate([10 ** rng.uniform(-5, 0, 500), rng.uniform(0, 1, 500), [1e-5, 1.0]]))
    if name == "chain":
        t = t[np.abs(4 * t - np.round(4 * t)) > 1e-5]  # on the grid the rate jumps
    schedule = MAKE[name]()
    for got, want in zip(COEFFICIENTS(schedule, t), formulae(name, np.float64(t)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    # the functions that samplers call: f(x, t) = rate x and g, t () or per example
    process, x = processes.gaussian(schedule), jnp.asarray(rng.normal(size=(5, 2, 3)), jnp.float32)
    rate, square, *_ = formulae(name, np.float64(t[:5]))
    np.testing.assert_allclose(sde.drift(process, x, t[:5]), rate[:, None, None] * x, rtol=1e-5)
    np.testing.assert_allclose(sde.drift(process, x, t[3]), rate[3] * x, rtol=1e-5)
    np.testing.assert_allclose(sde.diffusion(process, t[:5]), np.sqrt(square), rtol=1e-5)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(MAKE))
def test_moments_obey_their_equations(name):
    """dm/dt = f m and dv/dt = 2 f v + g², solved by scipy, are the marginals' alpha and sigma²."""
    with jax.enable_x64(True):
        schedule = MAKE[name]()

        def rhs(t, y):
            rate, square = (float(c) for c in COEFFICIENTS(schedule, t)[:2])
            return [rate * y[0], 2 * rate * y[1] + square]

        knots = np.linspace(0, 1, 5)  # the chain's coefficients jump at its grid points: not across them
        y = [float(schedule.alpha(0.01)), float(schedule.sigma(0.01)) ** 2]
        for start, end in zip([0.01, *knots[1:-1]], knots[1:], strict=True):
            inside = (start + 1e-9, end - 1e-9)
            y = scipy.integrate.solve_ivp(rhs, inside, y, method="DOP853", rtol=1e-9, atol=1e-14).y[:, -1]
            want = float(schedule.alpha(end)), float(schedule.sigma(end)) ** 2
            np.testing.assert_allclose(y, want, rtol=1e-6)


def test_a_long_chain_has_the_diffusion_of_its_limit():
    # Song et al. 2021, appendix B: β_i = β(i/N)/N tends to vp
    n = 4000
    chain = schedules.from_betas((LOW + (HIGH - LOW) * np.arange(1, n + 1) / n) / n)
    t = np.array([0.0501, 0.1001, 0.5001, 0.9999])
    for got, want in zip(COEFFICIENTS(chain, jnp.asarray(t))[:2], formulae("vp", t)[:2], strict=True):
        np.testing.assert_allclose(got, want, rtol=4e-3)  # β_i/2 in log(1 - β_i), and half a step of β


MIXTURE = ([0.3, 0.7], [[1.0, -0.5], [-0.8, 0.6]], [[[0.4, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.6]]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve"])
def test_probability_flow_obeys_the_continuity_equation(name):
    """∂ log p_t/∂t = -div u - u·∇log p_t for the flow u of a mixture: the flow carries p_0 to every p_t."""
    with jax.enable_x64(True):
        mixture = reference.GaussianMixture(*map(jnp.asarray, MIXTURE))
        process = processes.gaussian(MAKE[name]())
        flow = sde.velocity(process, mixture.predict(process.schedule))

        def log_prob(x, t):
            return mixture.at(process.schedule.alpha(t), process.schedule.sigma(t)).log_prob(x)

        @jax.jit
        @jax.vmap
        def sides(x, t):
            u = lambda x: flow(x[None], t)[0]  # noqa: E731
            h = 1e-5
            left = (log_prob(x, t + h) - log_prob(x, t - h)) / (2 * h)
            return left, -jnp.trace(jax.jacfwd(u)(x)) - u(x) @ jax.grad(log_prob)(x, t)

        t = jnp.repeat(jnp.array([0.02, 0.3, 0.8]), 4)
        scale = jnp.sqrt(process.schedule.alpha(t) ** 2 + process.schedule.sigma(t) ** 2)
        left, right = sides(scale[:, None] * jax.random.normal(jax.random.key(0), (12, 2)), t)
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(MAKE))
def test_velocity_on_a_gaussian(name):
    """Of N(0, s²) data the flow is x(t) ∝ √v(t), v = alpha² s² + sigma²: dx/dt = ½ v'/v x."""
    s, h, t = 0.7, 1e-6, np.array([0.03, 0.4, 0.9])

    def log_variance(t):
        *_, alpha, sigma = formulae(name, t)
        return np.log(alpha**2 * s**2 + sigma**2)

    want = 0.5 * (log_variance(t + h) - log_variance(t - h)) / (2 * h)
    x = np.array([[1.0, -2.0], [0.3, 0.7], [5.0, 0.1]])
    with jax.enable_x64(True):  # vp's f and ½ g² s nearly cancel where p_t is nearly the prior
        mixture = reference.GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), s**2 * jnp.eye(2)[None])
        schedule = MAKE[name]()
        flow = jax.jit(sde.velocity(processes.gaussian(schedule), mixture.predict(schedule)))
        np.testing.assert_allclose(flow(jnp.asarray(x), jnp.asarray(t)), want[:, None] * x, rtol=1e-6)
        np.testing.assert_allclose(flow(jnp.asarray(x), 0.4), want[1] * x, rtol=1e-6)


@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve"])
def test_score_of_every_kind(name):
    # On N(0, s²): score -x/v, and in each kind E[. | x_t] from (x_0, eps) = (alpha s²/v, sigma/v) x_t
    s, t = 0.7, np.array([0.01, 0.4, 1.0])
    *_, alpha, sigma = formulae(name, t)
    v = alpha**2 * s**2 + sigma**2
    x0, eps = alpha * s**2 / v, sigma / v
    gains = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "score": -1 / v}
    x = np.array([[1.0, -2.0], [0.3, 0.7], [5.0, 0.1]])
    with jax.enable_x64(True):  # in float32 an x_0 knows little of eps where there is little noise
        process = processes.gaussian(MAKE[name]())
        for kind, gain in gains.items():
            predict = predictions.predictor(kind, lambda x, t, g=gain: jnp.asarray(g)[:, None] * x)
            score = sde.score(process, predict)
            np.testing.assert_allclose(score(jnp.asarray(x), jnp.asarray(t)), -x / v[:, None], rtol=1e-9)
        told = sde.score(process, predictions.score(lambda x, t: -x * t[:, None]))
        np.testing.assert_allclose(told(jnp.asarray(x), 0.25), -0.25 * x)  # a network sees one time per example


def test_where_the_papers_stop():
    assert [sde.sample_from(MAKE[name]()) for name in ("vp", "sub_vp", "ve")] == [1e-3, 1e-3, 1e-5]
    assert sde.TRAIN_FROM == sde.LIKELIHOOD_FROM == 1e-5
    for name, end in (("vp", 1e-3), ("ve", 1e-5)):
        grid = np.float64(sde.times(MAKE[name](), 5))  # as the published samplers': linspace(1, eps, N), then to 0
        np.testing.assert_allclose(grid, [1, 0.75 + end / 4, 0.5 + end / 2, 0.25 + 0.75 * end, end, 0], rtol=1e-6)
        np.testing.assert_array_equal(sde.times(MAKE[name](), 1), [1, 0])


@pytest.mark.parametrize("t", [-0.1, 500, np.nan, np.array([0.5, 2.0])])
def test_times_that_are_none_are_named(t):
    process = processes.gaussian(schedules.vp())
    x, predict = jnp.ones((2, 1)), predictions.score(lambda x, t: -x)
    for call in (
        lambda: sde.drift_rate(process.schedule, t),
        lambda: sde.squared_diffusion(process.schedule, t),
        lambda: sde.diffusion(process, t),
        lambda: sde.drift(process, x, t),
        lambda: sde.score(process, predict)(x, t),
        lambda: sde.velocity(process, predict)(x, t),
    ):
        with pytest.raises(InputError, match=r"t must be in \[0, 1\], not .*the time of step i of T is i/T"):
            call()
    for num_steps in (0, 10.0, True):
        with pytest.raises(InputError, match="num_steps must be a positive integer"):
            sde.times(process.schedule, num_steps)
    np.testing.assert_array_equal(sde.times(process.schedule, np.int8(100)), sde.times(process.schedule, 100))
