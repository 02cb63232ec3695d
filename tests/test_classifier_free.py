"""Guidance by a second model: the flow of its field by scipy, its two ends, and what its options leave as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import diffjax as dj
from diffjax.errors import InputError
from diffjax.predictions import convert

SCHEDULE = dj.schedules.vp()
PROCESS = dj.processes.gaussian(SCHEDULE)
MEANS, VARIANCE, WEIGHTS = np.array([[1.0, 0.5], [-1.0, 0.0]]), 0.1, np.array([0.3, 0.7])
BOTH = dj.reference.GaussianMixture(*map(jnp.asarray, (WEIGHTS, MEANS, VARIANCE * np.stack([np.eye(2)] * 2))))
FIRST = dj.reference.GaussianMixture(jnp.ones(1), BOTH.means[:1], BOTH.covs[:1])
CONDITIONAL, UNCONDITIONAL = FIRST.predict(SCHEDULE), BOTH.predict(SCHEDULE)
X = jax.random.normal(jax.random.key(0), (6, 2))
T = jnp.array([0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
END = 0.05
guided = dj.conditioning.classifier_free


def x0(predict, t=T):
    x = X[: len(t)]
    return np.asarray(convert(predict(x, t), "x0", PROCESS, x, t))


def by_scipy(latents, scale):
    """The probability flow of s' + w (s - s') from t = 1 to END, in float64, one latent at a time."""

    def field(t, x):
        rate = 0.1 * t + 0.5 * t**2 * 19.9  # L
        alpha, power = np.exp(-rate / 2), -np.expm1(-rate)
        variance = alpha**2 * VARIANCE + power
        scores = (alpha * MEANS - x) / variance
        log = np.log(WEIGHTS) - ((x - alpha * MEANS) ** 2).sum(1) / (2 * variance)
        share = np.exp(log - log.max())
        both = share @ scores / share.sum()
        return -0.5 * (0.1 + 19.9 * t) * (x + both + scale * (scores[0] - both))

    return np.stack([solve_ivp(field, (1.0, END), x, rtol=1e-9, atol=1e-9).y[:, -1] for x in np.float64(latents)])


@jax.jit
def flow(scale):
    return dj.sde.decode(PROCESS, guided(CONDITIONAL, UNCONDITIONAL, PROCESS, scale), X, end=END, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 4.0])
def test_the_flow_is_that_of_the_guided_field(scale):
    np.testing.assert_allclose(flow(scale), by_scipy(X, scale), atol=2e-4)


def test_scales_0_and_1_are_the_two_models():
    for scale, model in ((0.0, UNCONDITIONAL), (1.0, CONDITIONAL)):
        got, want = guided(CONDITIONAL, UNCONDITIONAL, PROCESS, scale)(X, T), model(X, T)
        assert got.kind == want.kind
        np.testing.assert_allclose(got.value, want.value, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_one_guidance_whatever_is_predicted():
    def as_kind(kind, predict):
        return dj.predictions.predictor(kind, lambda xt, t: convert(predict(xt, t), kind, PROCESS, xt, t))

    want = x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0), T[:4])
    for kind, other in (("v", "v"), ("score", "score"), ("x0", "x0"), ("velocity", "velocity"), ("eps", "x0")):
        got = guided(as_kind(kind, CONDITIONAL), as_kind(other, UNCONDITIONAL), PROCESS, 3.0)
        assert got(X, T).kind == (kind if kind == other else "x0")
        np.testing.assert_allclose(x0(got, T[:4]), want, rtol=1e-4, atol=1e-4)


def test_outside_the_interval_the_model_is_conditional():
    got = x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0, interval=(0.2, 0.6)))
    inside = np.array([False, True, True, True, False, False])
    np.testing.assert_allclose(got[~inside], x0(CONDITIONAL)[~inside], rtol=1e-5)
    np.testing.assert_allclose(got[inside], x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0))[inside], rtol=1e-6)


def test_rescaled_and_projected():
    d, other = x0(CONDITIONAL), x0(UNCONDITIONAL)
    plain = d + 2 * (d - other)
    ratio = d.std(1, keepdims=True) / plain.std(1, keepdims=True)
    got = x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0, rescale=0.7))
    np.testing.assert_allclose(got, plain * (0.7 * ratio + 0.3), rtol=1e-4)
    moved = x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0, parallel=0.0)) - d
    np.testing.assert_allclose((moved * d).sum(1), 0, atol=1e-4)
    across = np.stack([-d[:, 1], d[:, 0]], 1)  # in the plane there is one other direction
    np.testing.assert_allclose((moved * across).sum(1), 2 * ((d - other) * across).sum(1), rtol=1e-3, atol=1e-4)
    norm = np.linalg.norm(d - other, axis=1, keepdims=True)
    limit = float(np.median(norm))  # some are longer and some are not
    got = x0(guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 3.0, limit=limit))
    np.testing.assert_allclose(
        got, d + 2 * (d - other) * np.minimum(1, limit / np.maximum(norm, 1e-9)), rtol=1e-4, atol=1e-5
    )


def test_numbers_that_change_compile_nothing():
    @jax.jit
    def run(scale, low, high, t):
        return guided(CONDITIONAL, UNCONDITIONAL, PROCESS, scale, (low, high))(X, t).value

    arguments = [jnp.float32(a) for a in (1.0, 0.1, 0.9)]
    run(*arguments, T)
    run(*(a + 0.05 for a in arguments), T[::-1])
    scales = jnp.arange(6.0)  # one for each example, as with labels
    rows = [run(w, *arguments[1:], T)[i] for i, w in enumerate(scales)]
    each = guided(CONDITIONAL, UNCONDITIONAL, PROCESS, scales, (0.1, 0.9))(X, T).value
    np.testing.assert_allclose(each, np.stack(rows), rtol=1e-5, atol=1e-6)
    assert run._cache_size() == 1


def test_what_cannot_be_is_refused():
    for interval in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.5)):
        with pytest.raises(InputError, match=r"interval=.* within \[0, 1\]"):
            guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 2.0, interval)
    with pytest.raises(InputError, match=r"limit=0\.0 must be positive"):
        guided(CONDITIONAL, UNCONDITIONAL, PROCESS, 2.0, limit=0.0)
    with pytest.raises(InputError, match="for Gaussian processes, not for Binomial"):
        guided(CONDITIONAL, UNCONDITIONAL, dj.processes.binomial(SCHEDULE, 0.5), 2.0)
