"""Schedules against the papers' formulae in float64, on the grid, between its points, and down to t = 1e-5."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import schedules
from diffjax.errors import InputError

LENGTHS = [1, 2, 17, 1000, 4000]


def linear_betas(num_steps):
    return np.array([1e-4 + (0.02 - 1e-4) * i / max(num_steps - 1, 1) for i in range(num_steps)])


def clipped(alpha_bar, max_beta):
    """Betas of the papers' recipe: beta_i = min(1 - alpha_bar_i/alpha_bar_{i-1}, max)."""
    return np.array([min(1 - b / a, max_beta) for a, b in itertools.pairwise(alpha_bar)])


def cosine_betas(num_steps):
    t = np.arange(num_steps + 1) / num_steps
    return clipped(np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2, 0.999)


def sigmoid_betas(num_steps):
    # Jabri et al. 2023, appendix B: (v_end - σ(start + t (end - start)))/(v_end - v_start)
    def v(x):
        return 1 / (1 + np.exp(-x))

    t = np.arange(num_steps + 1) / num_steps
    return clipped((v(3.0) - v(-3 + 6 * t)) / (v(3.0) - v(-3.0)), 0.999)


def ragged_betas(num_steps):
    return min(0.3, 10 / num_steps) * np.sin(np.arange(1, num_steps + 1)) ** 2 + 1e-4


CHAINS = {
    "linear": (schedules.linear, linear_betas),
    "cosine": (schedules.cosine, cosine_betas),
    "sigmoid": (schedules.sigmoid, sigmoid_betas),
    "from_betas": (lambda n: schedules.from_betas(ragged_betas(n)), ragged_betas),
}


def rate(betas, t):
    """Integrated rate in float64 and how much of it one rounding of t is worth."""
    table = np.concatenate([[0.0], np.cumsum(-np.log1p(-betas))])
    position = np.asarray(t, np.float64) * len(betas)
    value = np.interp(position, np.arange(len(table)), table)
    below = np.clip(np.floor(position).astype(int), 0, len(betas) - 1)
    slope = np.maximum(np.diff(table)[below], np.diff(table)[np.maximum(below - 1, 0)])
    return value, slope * position * 2.0**-23


# jitted once: the chains of one length are one pytree, whatever their betas
EVALUATE = jax.jit(lambda schedule, t: (schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)))
RATE = jax.jit(lambda schedule, t: schedule.integrated_rate(t))


def check(schedule, t, rate, wobble=0.0):
    """alpha, sigma and log_snr to 1e-6, in float32, plus what the rounding of t itself is worth."""
    t = jnp.asarray(t, jnp.float32)
    alpha, sigma, log_snr = (np.float64(x) for x in EVALUATE(schedule, t))
    assert (np.abs(alpha / np.exp(-0.5 * rate) - 1) <= 1e-6 + 0.5 * wobble).all()
    want = np.sqrt(-np.expm1(-rate))
    positive = rate > 0
    assert (np.abs(sigma[positive] / want[positive] - 1) <= 1e-6 + (wobble / np.maximum(rate, 1e-30))[positive]).all()
    assert (sigma[~positive] == 0).all() and np.isposinf(log_snr[~positive]).all()
    want = -np.log(np.expm1(rate[positive]))
    condition = (rate / -np.expm1(-np.maximum(rate, 1e-30)))[positive]  # |dλ/d log rate|
    error = np.abs(log_snr[positive] - want)
    # 1e-6 of λ, and the rate's own last place where λ passes through 0
    assert (error <= 1e-6 * np.abs(want) + (2e-7 + (wobble / np.maximum(rate, 1e-30))[positive]) * condition).all()


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(CHAINS))
@pytest.mark.parametrize("num_steps", LENGTHS)
def test_every_grid_point(name, num_steps):
    make, reference = CHAINS[name]
    schedule, betas = make(num_steps), reference(num_steps)
    assert schedule.num_steps == num_steps
    np.testing.assert_allclose(schedule.betas, betas, rtol=1e-6)
    np.testing.assert_allclose(schedule.times, np.arange(num_steps + 1) / num_steps, rtol=1.3e-7)
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    exact = -np.log(alpha_bar)
    exact[1:] = np.cumsum(-np.log1p(-betas))  # the same, without cancellation in the first steps
    np.testing.assert_allclose(np.exp(-exact), alpha_bar, rtol=1e-10)
    for times in (
        schedule.times,
        np.linspace(0, 1, num_steps + 1),
        jax.jit(lambda: jnp.arange(num_steps + 1) / num_steps)(),
    ):
        check(schedule, times, exact)
        # "exact" means the table's own number at every i, not a neighbour's slope
        np.testing.assert_array_equal(RATE(schedule, jnp.asarray(times, jnp.float32)), np.float32(exact))


@pytest.mark.parametrize("name", list(CHAINS))
@pytest.mark.parametrize("num_steps", [17, 1000, 4000])
def test_between_grid_points(name, num_steps):
    make, reference = CHAINS[name]
    rng = np.random.default_rng(0)
    t = np.concatenate(
        [10 ** rng.uniform(-5, 0, 2000), rng.uniform(0, 1, 1000), [1e-5, 1.0002 / num_steps, 0.9999 / num_steps]]
    )
    t = np.float32(np.clip(t, 1e-5, 1.0))
    value, wobble = rate(reference(num_steps), t)
    check(make(num_steps), t, value, wobble)


def test_vp():
    t = np.float32(np.concatenate([10 ** np.random.default_rng(1).uniform(-5, 0, 2000), [0.0, 1e-5, 1.0]]))
    for low, high in ((0.1, 20.0), (0.5, 3.0)):
        t64 = np.float64(t)
        check(schedules.vp(low, high), t, t64 * low + 0.5 * t64**2 * (high - low), 2e-7 * (low * t64 + high * t64**2))
    # d(rate)/dt = β(t), Song et al. 2021, eq. 32
    beta = jax.vmap(jax.grad(schedules.vp().integrated_rate))(jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(beta, 0.1 + 19.9 * np.linspace(0, 1, 11), rtol=1e-6)


def test_linear_is_the_published_one_and_tends_to_vp():
    np.testing.assert_allclose(schedules.linear().alpha(1.0) ** 2, 4.0358e-5, rtol=1e-5)
    # Song et al. 2021, appendix C: β_i = β(i/N)/N is the chain whose limit is vp.
    n = 100_000
    fine = schedules.from_betas((0.1 + 19.9 * np.arange(1, n + 1) / n) / n)
    t = jnp.array([0.01, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(fine.log_snr(t), schedules.vp().log_snr(t), atol=3e-3)


@pytest.mark.parametrize("name", ["cosine", "sigmoid"])
def test_unclipped_alpha_bar_is_the_formula_itself(name):
    t = np.arange(1000) / 1000  # all but the last point, which the clip moves
    if name == "cosine":
        want = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    else:
        want = (np.tanh(1.5) - np.tanh((-3 + 6 * t) / 2)) / (2 * np.tanh(1.5))  # σ(x) = ½(1 + tanh(x/2))
    got = CHAINS[name][0](1000).alpha(jnp.asarray(t, jnp.float32)) ** 2
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_from_betas_is_differentiable():
    with jax.enable_x64(True):
        betas = jnp.linspace(0.01, 0.3, 7)

        def outputs(betas):
            s = schedules.from_betas(betas)
            t = jnp.array([1 / 7, 3 / 7, 0.5, 1.0])
            return jnp.concatenate([s.alpha(t), s.sigma(t), s.log_snr(t)])

        jacobian = jax.jit(jax.jacrev(outputs))(betas)
        f = jax.jit(outputs)
        for i in range(7):
            h = 1e-6 * np.eye(7)[i]
            np.testing.assert_allclose(jacobian[:, i], (f(betas + h) - f(betas - h)) / 2e-6, rtol=1e-6, atol=1e-8)
        # traced betas (learned) and concrete ones are one schedule
        np.testing.assert_allclose(f(betas), outputs(betas), rtol=1e-12)


def test_from_betas_under_vmap():
    betas = np.random.default_rng(2).uniform(0.01, 0.5, (5, 9))
    got = jax.vmap(lambda b: schedules.from_betas(b).log_snr(0.4))(jnp.asarray(betas, jnp.float32))
    want = [float(schedules.from_betas(b).log_snr(0.4)) for b in betas]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_numbers_are_leaves():
    # A schedule is a pytree of numbers: vmap over beta_max, differentiate by beta_min, pass it through jit.
    high = jnp.array([1.0, 10.0, 20.0])
    got = jax.vmap(lambda h: schedules.VP(0.1, h).alpha(0.7))(high)
    np.testing.assert_allclose(got, np.exp(-0.5 * (0.07 + 0.245 * (np.asarray(high) - 0.1))), rtol=1e-6)
    slope = jax.grad(lambda low: -2 * jnp.log(schedules.VP(low, 20.0).alpha(0.7)))(0.1)
    np.testing.assert_allclose(slope, 0.7 - 0.245, rtol=1e-5)
    s = schedules.cosine(17)
    np.testing.assert_allclose(jax.jit(lambda s: s.alpha(s.times))(s), s.alpha(s.times), rtol=1e-6)


def test_gradient_in_t():
    # d(rate)/dt of a chain is -T log(1 - β) of the step that t is in; on the grid, of the step above (below at t = 1).
    betas = cosine_betas(17)
    s = schedules.cosine(17)
    t = np.append(np.arange(17) / 17, [0.2, 0.51, 0.9999, 1.0])
    step = np.minimum(np.floor(t * 17 + 1e-9).astype(int), 16)
    slope = jax.vmap(jax.grad(s.integrated_rate))(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(slope, -17 * np.log1p(-betas[step]), rtol=2e-6)
    t = jnp.asarray(10 ** np.linspace(-5, 0, 51), jnp.float32)
    for s in (schedules.linear(), schedules.cosine(), schedules.vp()):
        slope = np.asarray(jax.jit(jax.vmap(jax.grad(s.log_snr)))(t))
        assert np.isfinite(slope).all() and (slope < 0).all()


def test_broadcast_to():
    x = jnp.zeros((4, 3, 2))
    assert schedules.broadcast_to(0.5, x).shape == (1, 1, 1)
    per_example = schedules.broadcast_to(jnp.arange(4.0), x)
    np.testing.assert_array_equal((per_example + x)[:, 2, 1], np.arange(4))


@pytest.mark.parametrize(
    "betas", [[], [0.0, 0.1], [1.0, 0.1], [-0.1], [1.5], [0.1, np.nan], [[0.1, 0.2]], 0.1], ids=lambda b: str(b)
)
def test_bad_betas(betas):
    with pytest.raises(InputError, match="betas"):
        schedules.from_betas(np.asarray(betas))


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.sigmoid])
def test_bad_num_steps(make):
    with pytest.raises(InputError, match="num_steps"):
        make(0)


def test_sub_vp_and_ve():
    t = np.float32(np.concatenate([10 ** np.random.default_rng(3).uniform(-5, 0, 2000), [0.0, 1e-5, 1.0]]))
    t64 = np.float64(t)
    for low, high in ((0.1, 20.0), (0.5, 3.0)):
        # Song et al. 2021, eq. 29: the mean of vp, the standard deviation 1 - exp(-L)
        rate = t64 * low + 0.5 * t64**2 * (high - low)
        alpha, sigma, log_snr = (np.float64(a) for a in EVALUATE(schedules.sub_vp(low, high), t))
        np.testing.assert_allclose(alpha, np.exp(-0.5 * rate), rtol=1e-6)
        np.testing.assert_allclose(sigma, -np.expm1(-rate), rtol=1e-6)
        inside = rate > 0
        assert np.isposinf(log_snr[~inside]).all()
        want = -rate[inside] - 2 * np.log(-np.expm1(-rate[inside]))
        np.testing.assert_allclose(log_snr[inside], want, rtol=1e-6, atol=1e-6)
    for low, high in ((0.01, 50.0), (0.3, 2.0)):
        alpha, sigma, log_snr = (np.float64(a) for a in EVALUATE(schedules.ve(low, high), t))
        assert (alpha == 1).all()
        np.testing.assert_allclose(sigma, low * (high / low) ** t64, rtol=1e-6)  # eq. 30
        np.testing.assert_allclose(log_snr, -2 * np.log(low * (high / low) ** t64), rtol=1e-6, atol=1e-6)
        assert schedules.ve(low, high).prior_std == high
    assert schedules.sub_vp().prior_std == 1.0
    # equidistant times are NCSN's levels: a geometric sequence from 1 to 0.01
    levels = schedules.ve(0.01, 1.0).sigma(jnp.linspace(1, 0, 10))
    np.testing.assert_allclose(levels, np.geomspace(1, 0.01, 10), rtol=1e-6)


@pytest.mark.parametrize("pair", [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.1, np.inf), (np.nan, 1.0)])
def test_bad_noise_levels(pair):
    with pytest.raises(InputError, match=r"sigma_min=.* must be positive and less than sigma_max="):
        schedules.ve(*pair)


SCHEDULES = {
    "discrete": lambda: schedules.linear(10),
    "vp": schedules.vp,
    "sub_vp": schedules.sub_vp,
    "ve": schedules.ve,
    "vp of arrays": lambda: schedules.VP(jnp.float32(0.1), jnp.float32(20.0)),
}


@pytest.mark.parametrize("t", [1000, np.arange(3) * 500.0, -1e-3, np.nan, jnp.array([0.5, 1.1])], ids=str)
@pytest.mark.parametrize("name", list(SCHEDULES))
def test_times_out_of_range(name, t):
    schedule = SCHEDULES[name]()
    for method in (schedule.alpha, schedule.sigma, schedule.log_snr):
        with pytest.raises(InputError, match=r"t must be in \[0, 1\], not .*: the time of step i of T is i/T"):
            method(t)
        # a constant under jit is told as well, an argument of jit is not looked at
        with pytest.raises(InputError, match="t must be in"):
            jax.jit(lambda method=method: method(t))()
        assert jax.eval_shape(method, jnp.asarray(t)).shape == np.shape(t)
        method(np.float32(1.0) + np.float32(2e-7))  # a sum of steps that was rounded


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", list(SCHEDULES))
def test_types(name):
    # Of times in 16 bits the values are in 32; in 64-bit mode they are those of 32-bit times, to that precision.
    t = np.array([0.1, 0.25, 0.5, 1.0])
    with jax.enable_x64(True):
        want = [np.asarray(method(SCHEDULES[name](), t)) for method in METHODS]
    with jax.numpy_dtype_promotion("strict"):
        for dtype, wide, rtol in ((jnp.bfloat16, False, 0.02), (jnp.float16, False, 2e-3), (jnp.float32, True, 1e-5)):
            with jax.enable_x64(wide):
                values = jax.jit(lambda t: [method(SCHEDULES[name](), t) for method in METHODS])
                got = values(jnp.asarray(t, dtype))
            for a, b in zip(got, want, strict=True):
                # A chain's values are of its table's type. Times an array they are of the array's, and never narrow.
                assert a.dtype == (np.float64 if wide and name == "discrete" else np.float32)
                assert schedules.broadcast_to(a, jnp.zeros((4, 1), dtype)).dtype == np.float32
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


METHODS = (lambda s, t: s.alpha(t), lambda s, t: s.sigma(t), lambda s, t: s.log_snr(t))


def test_types_of_betas():
    # Learned betas keep their type, traced or not, also where jax's default is wider; tables of numbers have that.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for dtype, want in ((jnp.float32, np.float32), (jnp.bfloat16, np.float32), (jnp.float64, np.float64)):
            betas = jnp.full(3, 0.25, dtype)
            for schedule in (schedules.from_betas(betas), jax.jit(schedules.from_betas)(betas)):
                assert schedule.table.dtype == schedule.betas.dtype == schedule.times.dtype == want
                np.testing.assert_allclose(schedule.table, -np.arange(4) * np.log(0.75), rtol=1e-6)
        assert schedules.linear(3).table.dtype == np.float64
        # 1/10 in float32 is on a float64 grid
        chain = schedules.linear(10)
        np.testing.assert_array_equal(chain.integrated_rate(jnp.arange(11, dtype=jnp.float32) / 10), chain.table)


@pytest.mark.parametrize("make", [schedules.VP, schedules.SubVP, lambda a, b: schedules.from_betas(jnp.stack([a, b]))])
def test_gradient_where_there_is_no_noise(make):
    # sigma(0) = 0 and log_snr(0) = inf whatever the rate is: constants. At other times of the batch nothing is lost.
    def outputs(a, b):
        s, t = make(a, b), jnp.array([0.0, 0.5])
        return jnp.stack([s.alpha(t), s.sigma(t), jnp.exp(-0.5 * s.log_snr(t))])

    slopes = jax.jit(jax.jacrev(outputs, (0, 1)))(0.1, 0.4)
    f = jax.jit(outputs)
    for i, slope in enumerate(slopes):
        up, down = (f(0.1 + h * (i == 0), 0.4 + h * (i == 1)) for h in (1e-2, -1e-2))
        np.testing.assert_array_equal(slope[:, 0], 0)
        np.testing.assert_allclose(slope[:, 1], (up - down)[:, 1] / 2e-2, rtol=0.02, atol=1e-4)
