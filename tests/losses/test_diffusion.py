"""Losses against their known floors, the bound's terms, and what their gradients must and must not teach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bounds, losses, predictions, processes, schedules
from diffjax.distributions import DiscretizedNormal
from diffjax.predictions import KINDS, Prediction

SCHEDULE = schedules.cosine(20)
PROCESS = processes.gaussian(SCHEDULE)
ALPHA_BAR = np.cumprod(1 - np.float64(SCHEDULE.betas))
BATCH = 20_000
T = jnp.tile(SCHEDULE.times[1:], BATCH // 20)
X0 = jax.random.normal(jax.random.key(0), (BATCH, 3))


def scaled(factor):
    """factor times E[eps | x_t] = sigma x_t, the best predictor on N(0, I)."""
    return predictions.eps(lambda xt, t: factor * schedules.broadcast_to(SCHEDULE.sigma(t), xt) * xt)


def per_time(loss):
    """Mean and standard error at each of the 20 times."""
    table = np.float64(loss).reshape(-1, 20)
    return table.mean(0), table.std(0) / np.sqrt(len(table))


def test_simple_floor_is_alpha_bar_and_nothing_is_lower():
    # E ‖eps - c sigma x_t‖² = 1 - 2c sigma² + c² sigma² = alpha_bar + (1 - c)² sigma² per dimension
    run = jax.jit(lambda c: losses.simple(PROCESS, scaled(c), jax.random.key(1), X0, T))
    for c in (0.8, 0.95, 1.0, 1.05, 1.2):
        mean, se = per_time(run(c))
        assert (np.abs(mean - ALPHA_BAR - (1 - c) ** 2 * (1 - ALPHA_BAR)) < 5 * se + 1e-5).all()
    # At equal noise the slope in c vanishes at the exact predictor: no neighbour is lower.
    slope = np.float64(jax.jit(jax.jacfwd(lambda c: losses.simple(PROCESS, scaled(c), jax.random.key(1), X0, T)))(1.0))
    assert abs(slope.mean()) < 5 * slope.std() / np.sqrt(BATCH)


@pytest.mark.parametrize("kind", KINDS)
def test_floor_of_every_kind(kind):
    # The same predictor: error ᾱ in eps, 1/SNR times that in x_0, 1/σ² times in score, and E‖v - v̂‖² = ᾱ/α² = 1.
    mean, se = per_time(jax.jit(lambda: losses.simple(PROCESS, scaled(1.0), jax.random.key(2), X0, T, kind))())
    sigma2 = 1 - ALPHA_BAR
    want = {"eps": ALPHA_BAR, "x0": sigma2, "v": np.ones(20), "score": ALPHA_BAR / sigma2}[kind]
    assert (np.abs(mean - want) < 5 * se + 1e-4 * want).all()


def test_weights():
    key, x0, t = jax.random.key(3), X0[:100], T[:100]
    snr = ALPHA_BAR / (1 - ALPHA_BAR)
    snr = np.tile(snr, 5)
    eps_loss = losses.simple(PROCESS, scaled(0.7), key, x0, t)
    x0_loss = losses.simple(PROCESS, scaled(0.7), key, x0, t, "x0")

    def run(weight, kind="eps"):
        return losses.weighted(PROCESS, scaled(0.7), key, x0, t, weight, kind)

    np.testing.assert_allclose(run(lambda l: 2 + l**2), (2 + np.log(snr) ** 2) * eps_loss, rtol=1e-4)
    for gamma in (0.5, 5.0):
        assert (snr > gamma).any() and (snr < gamma).any()
        np.testing.assert_allclose(run(losses.min_snr(gamma)), np.minimum(snr, gamma) * x0_loss, rtol=1e-3)
    np.testing.assert_allclose(run(losses.p2(2.0, 3.0)), (3 + snr) ** -2.0 * eps_loss, rtol=1e-4)


def test_loss_is_a_mean_over_the_event_and_kept_per_example():
    x0 = X0[:6].reshape(3, 2, 3)
    loss = losses.simple(PROCESS, predictions.eps(lambda xt, t: jnp.zeros_like(xt)), jax.random.key(4), x0, T[:3])
    eps = jax.random.normal(jax.random.key(4), (3, 2, 3))
    np.testing.assert_allclose(loss, (np.float64(eps) ** 2).mean((1, 2)), rtol=1e-5)


def with_variance(w, v):
    def predict(xt, t):
        return Prediction(w * xt, "eps", v * jnp.ones_like(xt))

    return predict


@pytest.mark.parametrize(("variance", "decoder"), [("posterior", None), ("learned", DiscretizedNormal)])
def test_vlb_is_unbiased_for_the_bound_without_its_prior(variance, decoder):
    # Every step once per example, so the mean over the chain has no variance from the choice of t.
    x0 = jnp.round((jnp.tanh(X0[:1000]) + 1) * 127.5) / 127.5 - 1
    predict = with_variance(0.6, 0.4)
    times = SCHEDULE.times

    @jax.jit
    def both(key):
        def one(i):
            s, t = (jnp.broadcast_to(times[j], x0.shape[:1]) for j in (i, i + 1))
            return losses.vlb(PROCESS, predict, jax.random.fold_in(key, i), x0, s, t, 20, variance, decoder)

        terms = bounds.diffusion(PROCESS, predict, jax.random.fold_in(key, 99), x0, times, variance, decoder)
        return jax.lax.map(one, jnp.arange(20)), terms

    rows, terms = jax.tree.map(np.float64, both(jax.random.key(5)))
    wanted = np.concatenate([terms.reconstruction[None], terms.diffusion])
    for row, want in zip(rows / 20, wanted, strict=True):
        se = (row - want).std() / np.sqrt(1000)
        assert abs((row - want).mean()) < 5 * se + 1e-6
    whole = rows.mean(0) - (wanted.sum(0))
    assert abs(whole.mean()) < 5 * whole.std() / np.sqrt(1000)


@pytest.mark.parametrize(
    ("variance", "decoder"), [("posterior", None), ("forward", DiscretizedNormal), ("learned", DiscretizedNormal)]
)
def test_vlb_gradient_is_finite_at_every_step(variance, decoder):
    # s = 0 has no KL and t = 1 no β̃ above it: whichever cost is not asked for must not poison the gradient.
    t = SCHEDULE.times[1:]
    s = SCHEDULE.times[:-1]
    x0 = jnp.full((20, 2), -1.0)  # the outermost bin, and (w = -5) a mean far outside it

    def loss(params):
        return losses.vlb(PROCESS, with_variance(*params), jax.random.key(6), x0, s, t, 20, variance, decoder).sum()

    both = jax.jit(jax.value_and_grad(loss))
    for w in (0.5, -5.0):
        params = (jnp.float32(w), jnp.float32(0.5))
        grads = both(params)[1]
        assert np.isfinite(grads).all() and grads[0] != 0
        slope = [float(both((jnp.float32(w + h), params[1]))[0]) for h in (1e-2, -1e-2)]
        np.testing.assert_allclose(grads[0], (slope[0] - slope[1]) / 2e-2, rtol=3e-2)


def test_hybrid_teaches_mean_and_variance_separately():
    decoder = DiscretizedNormal
    x0, t, s = X0[:40].clip(-1, 1), T[:40], T[:40] - 0.05
    s = jnp.where(s < 0.01, 0.0, s)
    key, w, v = jax.random.key(7), jnp.float32(0.6), jnp.float32(0.4)

    @jax.jit
    def grads(w, v):
        def hybrid(w, v):
            return losses.hybrid(PROCESS, with_variance(w, v), key, x0, s, t, 20, decoder).mean()

        def simple(w, v):
            return losses.simple(PROCESS, with_variance(w, v), key, x0, t).mean()

        def vlb(w, v):
            return losses.vlb(PROCESS, with_variance(w, v), key, x0, s, t, 20, "learned", decoder).mean()

        values = hybrid(w, v), simple(w, v), vlb(w, v)
        return values, *(jax.grad(f, (0, 1))(w, v) for f in (hybrid, simple, vlb))

    values, hybrid, simple, vlb = grads(w, v)
    np.testing.assert_allclose(hybrid[0], simple[0], rtol=1e-5)  # the mean learns from L_simple alone
    assert abs(vlb[0]) > 1 and simple[1] == 0
    bits = 3 * np.log(2)
    np.testing.assert_allclose(hybrid[1], 0.001 * vlb[1] / bits, rtol=1e-4)
    np.testing.assert_allclose(values[0], values[1] + 0.001 * values[2] / bits, rtol=1e-5)


def test_training_reaches_the_floor():
    # A small MLP on N(0, I): the mean of ᾱ over the grid is the least L_simple there is.
    def network(params, xt, t):
        h = jnp.concatenate([xt, xt * t[:, None], jnp.cos(jnp.pi * jnp.arange(1, 5) * t[:, None])], -1)
        gain = jnp.tanh(h[:, 2 * xt.shape[1] :] @ params["a"] + params["b"]) @ params["c"] + params["d"]
        return gain * xt

    key = jax.random.key(8)
    params = {
        "a": 0.5 * jax.random.normal(key, (4, 16)),
        "b": jnp.zeros(16),
        "c": jnp.zeros((16, 1)),
        "d": jnp.zeros(1),
    }

    def loss(params, key, num):
        x_key, t_key, key = jax.random.split(key, 3)
        t = jax.random.randint(t_key, (num,), 1, 21) / 20
        x0 = jax.random.normal(x_key, (num, 2))
        return losses.simple(PROCESS, predictions.eps(lambda x, t: network(params, x, t)), key, x0, t)

    @jax.jit
    def train(params):
        def step(carry, i):
            params, m, v = carry
            g = jax.grad(lambda p: loss(p, jax.random.fold_in(key, i), 512).mean())(params)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, g)
            rate = 0.02 * 0.5 * (1 + jnp.cos(jnp.pi * i / 1500))
            params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-6), params, m, v)
            return (params, m, v), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(step, (params, zeros, zeros), jnp.arange(1500))[0][0]

    trained = train(params)
    value = np.float64(jax.jit(lambda p: loss(p, jax.random.key(9), 400_000))(trained))
    se = value.std() / np.sqrt(len(value))
    floor = ALPHA_BAR.mean()
    assert 5 * se < 0.02 * floor
    assert floor - 5 * se < value.mean() < 1.02 * floor
