"""Kinds of prediction against their definitions on an exact mixture, and their conversions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, predictions, processes, reference, schedules
from diffjax.errors import InputError
from diffjax.predictions import KINDS, Prediction

SCHEDULE = schedules.cosine(100)
PROCESS = processes.gaussian(SCHEDULE)
MIX = reference.GaussianMixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[1.0, -0.5], [-1.0, 0.8]]),
    jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.5, 0.0], [0.0, 0.1]]]),
)
T = jnp.array([0.01, 0.2, 0.5, 0.505, 0.8, 0.97])
XT = jax.random.normal(jax.random.key(0), (6, 2)) * 1.3


def exact(kind):
    """E[kind | x_t] of the mixture in numpy float64, by Bayes' rule over the components: no score, no pair."""
    out = []
    slopes = 100 * np.diff(np.float64(SCHEDULE.table))[[1, 20, 50, 50, 80, 97]]  # of L, to the right of t = i/100
    for x, alpha, sigma, slope in zip(
        np.float64(XT), np.float64(SCHEDULE.alpha(T)), np.float64(SCHEDULE.sigma(T)), slopes, strict=True
    ):
        weights, x0s = [], []
        for w, m, c in zip(*(np.float64(a) for a in MIX), strict=True):
            cov = alpha**2 * c + sigma**2 * np.eye(2)
            r = np.linalg.solve(cov, x - alpha * m)
            weights.append(w * np.exp(-0.5 * (x - alpha * m) @ r) / np.sqrt(np.linalg.det(cov)))
            x0s.append(m + alpha * c @ r)  # Gaussian conditioning
        x0 = np.average(x0s, axis=0, weights=weights)
        eps = (x - alpha * x0) / sigma
        velocity = slope * alpha / 2 * (alpha / sigma * eps - x0)  # alpha = e^(-L/2), sigma² = 1 - e^-L
        kinds = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma, "velocity": velocity}
        out.append(kinds[kind])
    return np.stack(out)


@pytest.mark.fast(1)
@pytest.mark.parametrize(("kind", "to"), list(itertools.product(KINDS, KINDS)))
def test_every_conversion_matches_bayes_and_returns(kind, to):
    given = Prediction(jnp.asarray(exact(kind), jnp.float32), kind)
    got = predictions.convert(given, to, PROCESS, XT, T)
    np.testing.assert_allclose(got, exact(to), rtol=5e-4, atol=5e-4)  # x0 -> eps divides by sigma = 0.016
    back = predictions.convert(Prediction(got, to), kind, PROCESS, XT, T)
    np.testing.assert_allclose(back, exact(kind), rtol=5e-4, atol=5e-4)


@pytest.mark.slow
def test_score_is_the_gradient_of_the_log_density():
    def log_density(x, t):
        return MIX.at(SCHEDULE.alpha(t), SCHEDULE.sigma(t)).log_prob(x)

    score = jax.jit(jax.vmap(jax.grad(log_density)))(XT, T)
    np.testing.assert_allclose(score, exact("score"), rtol=1e-4, atol=1e-4)
    eps = predictions.convert(Prediction(score, "score"), "eps", PROCESS, XT, T)
    np.testing.assert_allclose(MIX.predict(SCHEDULE)(XT, T).value, eps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pair_reproduces_xt(kind):
    prediction = Prediction(jax.random.normal(jax.random.key(1), XT.shape), kind)
    x0, eps = predictions.pair(prediction, SCHEDULE, XT, T)
    alpha, sigma = SCHEDULE.alpha(T)[:, None], SCHEDULE.sigma(T)[:, None]
    np.testing.assert_allclose(alpha * x0 + sigma * eps, XT, rtol=1e-4, atol=1e-4)
    # a training target is the value of a perfect prediction
    np.testing.assert_allclose(predictions.unpair(kind, SCHEDULE, x0, eps, T), prediction.value, rtol=2e-3, atol=2e-3)


def test_pair_needs_no_variance_preservation():
    # v is alpha eps - sigma x0 whatever alpha² + sigma² is.
    class Wide:
        prior_std = 3.0

        def alpha(self, t):
            return jnp.full(jnp.shape(t), 0.8)

        def sigma(self, t):
            return 3.0 * jnp.asarray(t)

    x0, eps = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, -1.0]])
    t = jnp.array([0.7])
    for kind in KINDS:
        value = predictions.unpair(kind, Wide(), x0, eps, t)
        got = predictions.pair(Prediction(value, kind), Wide(), 0.8 * x0 + 2.1 * eps, t)
        np.testing.assert_allclose(got[0], x0, rtol=1e-5)
        np.testing.assert_allclose(got[1], eps, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_clip_recomputes_eps(kind):
    value = exact(kind) + 3.0 * (np.arange(6)[:, None] % 2)
    predict = predictions.predictor(kind, lambda xt, t: jnp.asarray(value, jnp.float32))
    x0, _ = predictions.pair(predict(XT, T), SCHEDULE, XT, T)
    assert np.abs(x0).max() > 0.5
    clipped = predictions.clip(predict, PROCESS, -0.5, 0.5)(XT, T)
    got_x0, got_eps = predictions.pair(clipped, SCHEDULE, XT, T)
    np.testing.assert_allclose(got_x0, np.clip(x0, -0.5, 0.5), atol=1e-6)
    alpha, sigma = SCHEDULE.alpha(T)[:, None], SCHEDULE.sigma(T)[:, None]
    np.testing.assert_allclose(got_eps, (XT - alpha * np.clip(x0, -0.5, 0.5)) / sigma, rtol=1e-4, atol=1e-4)


def test_learned_variance_splits_the_channels():
    def network(xt, t):
        return jnp.concatenate([2 * xt, jnp.full_like(xt, -1.0).at[:, 1].set(0.5)], axis=-1)

    for make in (predictions.eps, predictions.x0, predictions.v, predictions.score, predictions.velocity):
        prediction = make(network, learned_variance=True)(XT, T)
        assert prediction.kind == make.__name__
        np.testing.assert_array_equal(prediction.value, 2 * XT)
        # (out + 1)/2: -1 is log β̃, 1 is log β
        np.testing.assert_allclose(prediction.log_var, np.broadcast_to([0.0, 0.75], XT.shape))
    kept = predictions.clip(predictions.eps(network, True), PROCESS)(XT, T)
    np.testing.assert_allclose(kept.log_var, np.broadcast_to([0.0, 0.75], XT.shape))


def test_scalar_time_and_vmap_over_kind_free_pytree():
    prediction = Prediction(XT, "v")
    per_example = predictions.convert(prediction, "x0", PROCESS, XT, jnp.full(6, 0.3))
    np.testing.assert_allclose(predictions.convert(prediction, "x0", PROCESS, XT, 0.3), per_example, rtol=1e-6)
    mapped = jax.vmap(lambda p, x, t: predictions.convert(p, "x0", PROCESS, x, t))(prediction, XT, jnp.full(6, 0.3))
    np.testing.assert_allclose(mapped, per_example, rtol=1e-5)
    assert jax.jit(lambda p: p)(prediction).kind == "v"


def test_unknown_kind():
    with pytest.raises(InputError, match="kind"):
        predictions.predictor("noise", lambda x, t: x)
    with pytest.raises(InputError, match="kind"):
        predictions.convert(Prediction(XT, "eps"), "noise", PROCESS, XT, T)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", False), ("float16", False), ("float32", True)])
def test_types(dtype, wide):
    # A network's output in 16 bits is exact from there on: conversions are done in the type of x_t, 32 bits or more.
    value, raw = jnp.asarray(np.float32(XT) / 2, dtype), jnp.full(XT.shape, 0.25, dtype)

    def everything(xt, value, raw):
        make = [predictions.predictor(kind, lambda x, t: jnp.concatenate([value, raw], -1), True) for kind in KINDS]
        out = [predict(xt, T) for predict in make]
        converted = [predictions.convert(p, kind, PROCESS, xt, T) for p in out for kind in KINDS]
        return converted, [p.log_var for p in out], predictions.clip(make[KINDS.index("v")], PROCESS)(xt, T).value

    with jax.enable_x64(True):
        want = jax.jit(everything)(XT.astype(float), value.astype(float), raw.astype(float))
    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        got = jax.jit(everything)(XT, value, raw)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == np.float32 and b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# Preconditioning and thresholds ----------------------------------------------------------------------------------


def test_preconditioning_of_unit_variance_is_v():
    schedule = schedules.vp()
    process, t = processes.gaussian(schedule), jnp.array([0.01, 0.3, 0.9])
    x = jnp.array([[0.5, -1.0], [2.0, 0.1], [-0.3, 0.7]])
    got = predictions.preconditioned(lambda x, c: jnp.cos(3 * x), schedule, 1.0)(x, t)
    want = predictions.v(lambda x, t: -jnp.cos(3 * x))(x, t)
    np.testing.assert_allclose(got.value, predictions.convert(want, "x0", process, x, t), rtol=1e-5, atol=1e-6)


def test_preconditioning_is_that_of_the_paper_whatever_alpha():
    # Karras et al. 2022, table 1, of x/alpha at the level sigma/alpha.
    t, s, x = np.array([0.02, 0.4, 0.97]), 0.6, np.array([[0.5], [2.0], [-0.3]])
    for schedule in (schedules.edm(0.01, 30.0), schedules.vp(), schedules.straight()):
        alpha, level = (np.float64(a)[:, None] for a in (schedule.alpha(t), schedule.sigma(t) / schedule.alpha(t)))
        z, root = x / alpha, np.sqrt(level**2 + s**2)
        skip, out, c_in, noise = s**2 / root**2, level * s / root, 1 / root, 0.25 * np.log(level)
        got = predictions.preconditioned(lambda x, c: jnp.sin(x) + c[:, None], schedule, s)(
            jnp.asarray(x), jnp.asarray(t)
        )
        np.testing.assert_allclose(got.value, skip * z + out * (np.sin(c_in * z) + noise), rtol=1e-4)
    # Where alpha = 0 it exists, too: c_skip is 0, and c_out is s.
    seen = predictions.preconditioned(lambda x, c: x + 0 * c[:, None], schedules.straight(), s)(
        jnp.ones((1, 1)), jnp.ones(1)
    )
    np.testing.assert_allclose(seen.value, [[s]], rtol=1e-6)


def test_what_a_preconditioned_network_sees_and_has_to_say_has_unit_variance():
    # x_0 ~ N(0, s²): the best F is 0, and the EDM-weighted loss of F = 0 is 1 at every level, its closed-form minimum.
    schedule, s, n = schedules.edm(0.002, 80.0), 0.6, 20_000
    process, seen = processes.gaussian(schedule), []

    def zero(x, c):
        seen.append(x)
        return 0 * x

    predict = predictions.preconditioned(zero, schedule, s)
    x0 = s * jax.random.normal(jax.random.key(0), (n, 1))
    for level in (0.01, 0.6, 40.0):
        t = jnp.full(n, level / 80.0)
        loss = np.float64(losses.weighted(process, predict, jax.random.key(1), x0, t, losses.edm(s), "x0"))
        assert abs(loss.mean() - 1) < 5 * np.sqrt(2 / n)
        assert abs(np.float64(seen.pop()).var() - 1) < 5 * np.sqrt(2 / n)
        # F = 0 is the best: D(x) = c x with c a hundredth off costs more, by c² E x² over the least.
        off = predictions.x0(
            lambda x, t, level=level: (s**2 / (level**2 + s**2) + 0.2 * min(level, 1.0) * s / level) * x
        )
        worse = np.float64(losses.weighted(process, off, jax.random.key(1), x0, t, losses.edm(s), "x0"))
        assert worse.mean() > loss.mean()


def test_dynamic_threshold_by_numpy():
    process, t = processes.gaussian(schedules.vp()), jnp.array([0.2, 0.5])
    x0 = np.float32([[[0.1, -3.0], [2.0, 0.5]], [[0.1, -0.3], [0.2, 0.5]]])
    predict = predictions.dynamic_threshold(predictions.x0(lambda x, t: jnp.asarray(x0)), process, 0.7)
    got = predict(jnp.zeros_like(x0), t)
    s = np.quantile(np.abs(x0[0]), 0.7)
    assert s > 1 and got.kind == "x0"
    np.testing.assert_allclose(got.value[0], np.clip(x0[0], -s, s) / s, rtol=1e-6)
    np.testing.assert_array_equal(got.value[1], x0[1])  # within [-1, 1] nothing changes
