"""The Gaussian process against the laws that every Markov chain obeys, in float32, on grids and off them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import processes, schedules
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.losses import draw
from diffjax.predictions import Prediction

SCHEDULES = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(100),
    "vp": schedules.vp(),
    "short": schedules.from_betas([0.1, 0.4, 0.05, 0.7]),
}
# on the grids, between their points, next to each other, next to 0
PAIRS = [(0.25, 0.5), (0.001, 0.002), (0.1234, 0.1241), (1e-4, 0.9), (0.5, 1.0), (0.75, 0.7512), (1e-5, 2e-5)]


def names():
    return pytest.mark.parametrize("name", list(SCHEDULES))


def float64(schedule, t):
    """alpha² and sigma² in float64 from log-SNR alone (variance preserving)."""
    l = np.float64(schedule.log_snr(t))
    return 1 / (1 + np.exp(-l)), 1 / (1 + np.exp(l))


@names()
def test_chapman_kolmogorov(name):
    # q(x_t | x_0) = ∫ q(x_t | x_s) q(x_s | x_0) dx_s: means compose, variances add.
    p = processes.gaussian(SCHEDULES[name])
    x0 = jnp.array([[1.5]])
    for s, t in PAIRS:
        first, whole = p.marginal(x0, s), p.marginal(x0, t)
        step = p.transition(first.mean, s, t)
        np.testing.assert_allclose(step.mean, whole.mean, rtol=3e-6)
        gain = p.transition(jnp.ones_like(x0), s, t).mean
        np.testing.assert_allclose(gain**2 * first.variance + step.variance, whole.variance, rtol=2e-5)


@names()
def test_transition_variance(name):
    # 1 - alpha_bar_t/alpha_bar_s: the product of the chain's own 1 - beta between s and t, in float64.
    schedule = SCHEDULES[name]
    p = processes.gaussian(schedule)
    for s, t in PAIRS:
        rate = np.float64(schedule.integrated_rate(t)) - np.float64(schedule.integrated_rate(s))
        rounding = 3e-7 * float(schedule.integrated_rate(t)) / rate
        got = p.transition(jnp.ones((1, 1)), s, t).variance
        # λ_t - λ_s is a difference of numbers of size |λ|
        snr = max(abs(float(schedule.log_snr(s))), abs(float(schedule.log_snr(t))), 1.0)
        drop = float(schedule.log_snr(s) - schedule.log_snr(t))
        np.testing.assert_allclose(got, -np.expm1(-rate), rtol=1e-6 + rounding + 4e-7 * snr / min(drop, 1.0))


@pytest.mark.fast(1)
@names()
def test_bayes_rule_pointwise(name):
    # log q(x_s | x_t, x_0) = log q(x_t | x_s) + log q(x_s | x_0) - log q(x_t | x_0) at every x_s, x_t, x_0.
    p = processes.gaussian(SCHEDULES[name])
    keys = jax.random.split(jax.random.key(0), 3)
    for s, t in [(0.25, 0.5), (0.1234, 0.2), (0.01, 0.9), (0.5, 1.0), (0.75, 0.8)]:
        x0 = jax.random.normal(keys[0], (50, 2))
        xs = p.marginal(x0, s).sample(keys[1])
        xt = p.transition(xs, s, t).sample(keys[2])
        left = p.posterior(x0, xt, s, t).log_prob(xs)
        right = p.transition(xs, s, t).log_prob(xt) + p.marginal(x0, s).log_prob(xs) - p.marginal(x0, t).log_prob(xt)
        np.testing.assert_allclose(left, right, atol=3e-3)


@names()
def test_posterior_against_the_textbook(name):
    # Ho et al. 2020, eq. 7 with β = 1 - ᾱ_t/ᾱ_s, in float64.
    schedule = SCHEDULES[name]
    p = processes.gaussian(schedule)
    x0, xt = 0.7, -1.1
    for s, t in [(0.25, 0.5), (0.1234, 0.2), (0.001, 0.9), (0.5, 1.0), (0.75, 0.8)]:
        (a_s, v_s), (a_t, v_t) = float64(schedule, s), float64(schedule, t)
        beta = 1 - a_t / a_s
        mean = np.sqrt(a_s) * beta / v_t * x0 + np.sqrt(a_t / a_s) * v_s / v_t * xt
        got = p.posterior(jnp.full((1, 1), x0), jnp.full((1, 1), xt), s, t)
        np.testing.assert_allclose(got.mean, [[mean]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.variance, [[v_s / v_t * beta]], rtol=1e-5)


@names()
def test_at_zero(name):
    p = processes.gaussian(SCHEDULES[name])
    x0, xt = jnp.array([[0.3, -2.0]]), jnp.array([[1.0, 5.0]])
    point = p.posterior(x0, xt, 0.0, 0.5)
    np.testing.assert_array_equal(point.mean, x0)
    np.testing.assert_array_equal(point.variance, [[0.0]])
    np.testing.assert_array_equal(p.marginal(x0, 0.0).mean, x0)
    np.testing.assert_array_equal(p.marginal(x0, 0.0).variance, [[0.0]])
    whole, step = p.marginal(x0, 0.5), p.transition(x0, 0.0, 0.5)
    np.testing.assert_allclose(step.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(step.variance, whole.variance, rtol=1e-6)


def test_prior_is_standard_normal():
    prior = processes.gaussian(SCHEDULES["linear"]).prior((2, 3))
    assert prior.sample(jax.random.key(0)).shape == (2, 3)
    np.testing.assert_allclose(prior.log_prob(jnp.full((2, 3), 1.0)), -0.5 - 0.5 * np.log(2 * np.pi), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosine", "vp"])
def test_times_broadcast(name):
    p = processes.gaussian(SCHEDULES[name])
    x0 = jax.random.normal(jax.random.key(1), (3, 2, 2))
    xt = jax.random.normal(jax.random.key(2), (3, 2, 2))
    s, t = jnp.array([0.0, 0.1, 0.3]), jnp.array([0.2, 0.5, 1.0])
    prediction = Prediction(0.3 * xt, "eps", jnp.full_like(xt, 0.4))

    def every(x0, xt, s, t, prediction):
        return [
            p.marginal(x0, t),
            p.transition(x0, s, t),
            p.posterior(x0, xt, s, t),
            *(p.reverse(prediction, xt, s, t, v) for v in ("posterior", "forward", "learned")),
        ]

    every = jax.jit(every)
    together = every(x0, xt, s, t, prediction)
    for i in range(3):
        one = Prediction(prediction.value[i], "eps", prediction.log_var[i])
        for batched, single in zip(together, every(x0[i], xt[i], s[i], t[i], one), strict=True):
            np.testing.assert_allclose(batched.mean[i], single.mean, rtol=1e-5, atol=1e-6)
            shape = (3, 2, 2)
            np.testing.assert_allclose(
                np.broadcast_to(batched.variance, shape)[i], np.broadcast_to(single.variance, shape[1:]), rtol=1e-5
            )


def test_reverse_is_the_posterior_of_the_prediction():
    p = processes.gaussian(SCHEDULES["linear"])
    x0, xt = jnp.array([[0.4, -1.0]]), jnp.array([[1.0, 0.2]])
    s, t = 0.3, 0.301
    (a_s, v_s), (a_t, v_t) = float64(p.schedule, s), float64(p.schedule, t)
    beta = 1 - a_t / a_s
    small = v_s / v_t * beta
    prediction = Prediction(x0, "x0", jnp.array([[0.25, 0.75]]))
    for variance, want in (
        ("posterior", small),
        ("forward", beta),
        ("learned", np.exp(np.log(beta) * np.array([0.25, 0.75]) + np.log(small) * np.array([0.75, 0.25]))),
    ):
        kernel = p.reverse(prediction, xt, s, t, variance)
        np.testing.assert_allclose(kernel.mean, p.posterior(x0, xt, s, t).mean, rtol=1e-6)
        np.testing.assert_allclose(np.broadcast_to(kernel.variance, (1, 2))[0], np.broadcast_to(want, 2), rtol=1e-4)
    # Algorithm 2's mean, (x - β/√(1-ᾱ) ε)/√(1-β)
    eps = (np.float64(xt) - np.sqrt(a_t) * np.float64(x0)) / np.sqrt(v_t)
    mean = (np.float64(xt) - beta / np.sqrt(v_t) * eps) / np.sqrt(1 - beta)
    np.testing.assert_allclose(
        p.reverse(Prediction(jnp.asarray(eps, jnp.float32), "eps"), xt, s, t).mean, mean, rtol=1e-5
    )


def test_first_step_takes_the_next_variance():
    # β̃_1 = 0; DDPM's code puts β̃_2 there.
    betas = np.float64(schedules.linear().betas)
    alpha_bar = np.cumprod(1 - betas)
    second = betas[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1])
    p = processes.gaussian(schedules.linear())
    x = jnp.ones((1, 1))
    kernel = p.reverse(Prediction(x, "x0", jnp.full((1, 1), 0.5)), x, 0.0, p.schedule.times[1], "posterior")
    np.testing.assert_allclose(kernel.variance, [[second]], rtol=1e-4)
    np.testing.assert_allclose(kernel.mean, [[1.0]])
    learned = p.reverse(Prediction(x, "x0", jnp.full((1, 1), 0.5)), x, 0.0, p.schedule.times[1], "learned")
    np.testing.assert_allclose(learned.variance, [[np.sqrt(second * betas[0])]], rtol=1e-4)


def test_a_process_is_a_pytree_of_numbers():
    p = processes.gaussian(SCHEDULES["vp"])
    x = jnp.ones((2, 3))
    got = jax.jit(lambda p, x: p.posterior(x, x, 0.2, 0.7))(p, x)
    want = p.posterior(x, x, 0.2, 0.7)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-6)
    scan = jax.lax.scan(
        lambda c, b: (c, processes.gaussian(schedules.VP(b, 20.0)).marginal(x, 0.5)), 0, jnp.array([0.1, 1.0])
    )
    assert isinstance(scan[1], Normal)
    np.testing.assert_allclose(scan[1].mean[0], p.marginal(x, 0.5).mean, rtol=1e-6)


@pytest.mark.fast(1)
@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
def test_schedule_gradient_is_finite_at_s_zero(variance):
    # A schedule learns through every kernel, the last one (s = 0, where log-SNR is infinite) included.
    def cost(betas):
        p, x = processes.gaussian(schedules.from_betas(betas)), jnp.array([[0.5]])
        kernel = p.reverse(Prediction(0.3 * x, "eps", jnp.full((1, 1), 0.5)), x, 0.0, 0.25, variance)
        return kernel.log_prob(0.4 * x).sum()

    with jax.enable_x64(True):
        betas = jnp.array([0.1, 0.4, 0.05, 0.7])
        grad, f = jax.jit(jax.grad(cost))(betas), jax.jit(cost)
        for i in range(4):
            h = 1e-6 * np.eye(4)[i]
            np.testing.assert_allclose(grad[i], (f(betas + h) - f(betas - h)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_gradient_of_the_conditionals_of_the_data_themselves():
    # q(x_0 | x_0) and q(x_0 | x_t, x_0) are point masses whatever the schedule: their gradients are 0, and not NaN.
    def outputs(betas):
        x, schedule = jnp.array([[0.5, 1.0]]), schedules.from_betas(betas)
        p, bits = processes.gaussian(schedule), processes.binomial(schedule, 0.3)
        points = [p.marginal(x, 0.0), p.posterior(x, x, 0.0, 0.5)]
        draws = [draw(q, jax.random.key(0)) for q in points]
        certain = [q.mean for q in (bits.marginal(jnp.array([[0.0, 1.0]]), 0.0), *points)]
        return jnp.stack([*draws, *certain, draw(p.transition(x, 0.0, 0.5), jax.random.key(0))])

    with jax.enable_x64(True):
        betas = jnp.array([0.1, 0.4])
        slopes, f = jax.jit(jax.jacrev(outputs))(betas), jax.jit(outputs)
        assert (slopes[:-1] == 0).all()
        for i in range(2):
            h = 1e-6 * np.eye(2)[i]
            np.testing.assert_allclose(slopes[..., i], (f(betas + h) - f(betas - h)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", False), ("float16", False), ("float32", True)])
def test_types(dtype, wide):
    x, xt = jnp.array([[0.5, -1.5]], dtype), jnp.array([[0.25, 2.0]], dtype)  # exact in 16 bits

    def conditionals(x, xt, dtype):
        p = processes.gaussian(schedules.cosine(100))
        prediction = Prediction(x.astype(dtype), "x0", jnp.full_like(x, 0.5))
        kernels = [p.reverse(prediction, xt, 0.25, 0.5, v) for v in ("posterior", "forward", "learned", "shifted")]
        bits, ones, zeros = processes.binomial(schedules.cosine(100), 0.25), (x > 0).astype(int), (xt < 1).astype(int)
        logits = [bits.marginal(ones, 0.5), bits.transition(ones, 0.25, 0.5), bits.posterior(ones, zeros, 0.25, 0.5)]
        logits.append(bits.reverse(Prediction(x.astype(dtype), "logits"), xt, 0.25, 0.5))
        normals = [p.marginal(x, 0.5), p.transition(x, 0.25, 0.5), p.posterior(x, xt, 0.25, 0.5), *kernels]
        return [a for q in normals for a in q], [q.logits for q in logits]

    with jax.enable_x64(True):
        want = jax.jit(conditionals, static_argnums=2)(x.astype(float), xt.astype(float), "float64")
    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        got = jax.jit(conditionals, static_argnums=2)(x, xt, dtype)
        # integers have jax's default type, everything else that of x
        assert {a.dtype for a in got[1][:3]} == {jnp.zeros(()).dtype}
    assert {a.dtype for a in [*got[0], got[1][3]]} == {np.dtype(np.float32)}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_errors():
    p = processes.gaussian(SCHEDULES["linear"])
    x = jnp.ones((1, 2))
    with pytest.raises(InputError, match="learned"):
        p.reverse(Prediction(x, "eps"), x, 0.1, 0.2, "learned")
    with pytest.raises(InputError, match="variance"):
        p.reverse(Prediction(x, "eps"), x, 0.1, 0.2, "fixed")
    for bad in (lambda t: p.marginal(x, t), lambda t: p.transition(x, 0.5, t), lambda t: p.posterior(x, x, 0.5, t)):
        with pytest.raises(InputError, match=r"t must be in \[0, 1\]"):
            bad(500)
