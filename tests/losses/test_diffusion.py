"""Losses against their known floors, the bound's terms, and what their gradients must and must not teach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bounds, losses, predictions, processes, registry, schedules
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
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


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", KINDS)
def test_floor_of_every_kind(kind):
    # The same predictor: error ᾱ in eps, 1/SNR times that in x_0, 1/σ² times in score, and E‖v - v̂‖² = ᾱ/α² = 1.
    mean, se = per_time(jax.jit(lambda: losses.simple(PROCESS, scaled(1.0), jax.random.key(2), X0, T, kind))())
    sigma2 = 1 - ALPHA_BAR
    # The velocity is (alpha L'/2)(alpha/sigma eps - x_0), and E‖eps alpha/sigma - x_0 - ...‖² = 1/sigma² given x_t.
    rate = 20 * np.diff(np.float64(SCHEDULE.table))[[*range(1, 20), 19]]
    velocity = ALPHA_BAR * rate**2 / (4 * sigma2)
    want = {"eps": ALPHA_BAR, "x0": sigma2, "v": np.ones(20), "score": ALPHA_BAR / sigma2, "velocity": velocity}[kind]
    assert (np.abs(mean - want) < 5 * se + 1e-4 * want).all()


@pytest.mark.slow
def test_weights():
    key, x0, t = jax.random.key(3), X0[:100], T[:100]
    snr = ALPHA_BAR / (1 - ALPHA_BAR)
    snr = np.tile(snr, 5)
    eps_loss = losses.simple(PROCESS, scaled(0.7), key, x0, t)
    x0_loss = losses.simple(PROCESS, scaled(0.7), key, x0, t, "x0")

    def run(weight, kind="eps"):
        return losses.weighted(PROCESS, scaled(0.7), key, x0, t, weight, kind)

    np.testing.assert_allclose(run(lambda l: 2 + l**2), (2 + np.log(snr) ** 2) * x0_loss, rtol=1e-4)
    for gamma in (0.5, 5.0):
        assert (snr > gamma).any() and (snr < gamma).any()
        np.testing.assert_allclose(run(losses.min_snr(gamma)), np.minimum(snr, gamma) * x0_loss, rtol=1e-3)
    np.testing.assert_allclose(run(losses.p2(2.0, 3.0)), (3 + snr) ** -2.0 * eps_loss, rtol=1e-4)


def test_every_weight_is_its_formula():
    settings = {"gamma": 2.0, "k": 3.0, "bias": -1.0, "floor": 0.3, "sigma_data": 0.5}
    log_snr = np.array([-6.0, -1.5, 0.0, 2.5])
    snr = np.exp(log_snr)
    noise = 1 / snr  # σ² where alpha = 1
    want = {
        "constant": np.ones(4),
        "snr": snr,
        "snr_plus_one": snr + 1,
        "truncated_snr": np.maximum(snr, 0.3),
        "min_snr": np.minimum(snr, 2),
        "soft_min_snr": 1 / (noise + 1 / 2),
        "p2": snr / (3 + snr) ** 2,
        "sigmoid": snr / (1 + np.exp(1 + log_snr)),
        "edm": (noise + 0.25) / (0.25 * noise),
    }
    assert want.keys() == losses.WEIGHTS.keys()
    for name, values in want.items():
        weight = registry.build(losses.WEIGHTS[name], settings=settings)
        np.testing.assert_allclose(weight(jnp.asarray(log_snr)), values, rtol=1e-5)
    with pytest.raises(InputError, match="edm needs sigma_data"):
        losses.chain_loss("edm", PROCESS, 20)


def test_uncertainty_is_learned_where_it_is_the_logarithm_of_the_mean_loss():
    loss = jnp.array([0.5, 2.0, 3.5])
    value, slope = jax.value_and_grad(lambda u: losses.learned_uncertainty(loss, jnp.full(3, u)).mean())(np.log(2.0))
    np.testing.assert_allclose((value, slope), (1 + np.log(2), 0.0), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_a_weight_gives_one_loss_whatever_the_kind(name):
    snr = np.array([25.0, 1.0, 0.04])
    chain = schedules.from_betas(1 - np.array([25 / 26, 26 / 50, 0.04 / 1.04 * 2]))
    schedule, t = {"vp": (chain, jnp.arange(1, 4) / 3), "ve": (schedules.ve(0.2, 5.0), jnp.arange(3) / 2)}[name]
    alpha2, sigma2 = (snr / (1 + snr), 1 / (1 + snr)) if name == "vp" else (1.0, 1 / snr)
    process, x0 = processes.gaussian(schedule), jnp.ones((3, 2))
    weights = [losses.min_snr(), losses.p2(2.0, 3.0), lambda l: 2 + l**2]
    on_eps = np.array([[0.2, 1.0, 1.0], (3 + snr) ** -2.0, (2 + np.log(snr) ** 2) / snr])
    # |eps err|²/|err|² at one x_t: the errors of x_0 and eps cancel, alpha dx_0 + sigma deps = 0.
    factor = {"eps": 1.0, "x0": snr, "v": alpha2 / (alpha2 + sigma2) ** 2, "score": sigma2}
    if name == "ve":  # dx_t/dt = sigma' eps, sigma' = sigma log 25
        factor["velocity"] = 1 / (sigma2 * np.log(25) ** 2)
    else:  # alpha' = -alpha L'/2, sigma' = alpha² L'/(2 sigma), with the slope of L to the right of a grid point
        rate = -3 * np.log(np.array([26 / 50, 0.04 / 1.04 * 2, 0.04 / 1.04 * 2]))
        factor["velocity"] = 4 * sigma2 / rate**2

    @jax.jit
    def run():
        predict = predictions.v(lambda x, t: 0.3 * x)
        args = (process, predict, jax.random.key(0), x0, t)
        return {k: (losses.simple(*args, k), jnp.stack([losses.weighted(*args, w, k) for w in weights])) for k in KINDS}

    out = run()
    for kind in KINDS:
        plain, weighted = out[kind]
        np.testing.assert_allclose(weighted / plain, on_eps * factor[kind], rtol=2e-5)
        np.testing.assert_allclose(weighted, out["eps"][1], rtol=1e-4)
    if name == "vp":
        np.testing.assert_allclose(out["v"][1][0] / out["v"][0], [0.19231, 0.5, 0.03846], atol=1e-5)


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    ("dtype", "wide", "tolerance"), [("bfloat16", False, 0.03), ("float16", False, 3e-3), ("float32", True, 2e-5)]
)
def test_types(dtype, wide, tolerance):
    # Data, times and the network's output of that type; the truth from the same noise in float64.
    x0, key, (s, t) = jnp.array([[0.5, -1.0], [0.25, 2.0]], dtype), jax.random.key(0), (0.25, 0.5)

    def everything(x0, s, t):
        process = processes.gaussian(schedules.linear(20, 0.01, 0.2))
        predict = predictions.v(lambda x, t: 0.5 * x.astype(dtype))
        return (
            losses.simple(process, predict, key, x0, t, "x0"),
            losses.weighted(process, predict, key, x0, t, losses.min_snr(), "x0"),
            losses.weighted_score_matching(process, predict, key, x0, t, lambda t: t),
            losses.vlb(process, predict, key, x0, s, t, 20),
        )

    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        times = [jnp.full(2, a, jnp.float64 if wide else dtype) for a in (s, t)]
        got = jax.jit(everything)(x0, *times)
        eps = np.float64(jax.random.normal(key, (2, 2), jnp.float32))
    assert {loss.dtype for loss in got} == {np.dtype(np.float32)}
    ab_s, ab = np.cumprod(1 - np.linspace(0.01, 0.2, 20))[[4, 9]]
    xt = np.sqrt(ab) * np.float64(x0) + np.sqrt(1 - ab) * eps
    error2 = (np.float64(x0) - (np.sqrt(ab) - 0.5 * np.sqrt(1 - ab)) * xt) ** 2  # x̂_0 = alpha x - sigma v
    snr, r = ab / (1 - ab), 1 - (ab / (1 - ab)) / (ab_s / (1 - ab_s))
    kl = 0.5 * ab_s * r**2 * error2 / (r * (1 - ab_s))
    want = error2.mean(1), min(snr, 5) * error2.mean(1), 0.5 * t / (1 - ab) * snr * error2.sum(1), 20 * kl.sum(1)
    for one, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(one, exact, rtol=tolerance)


@pytest.mark.slow
def test_a_chain_of_one_step():
    # There is no β̃: said at once, where a NaN came. β there is, and the bound with it: -log N(x_0; x̂_0, 1 - ᾱ).
    x0, key, (s, t) = jnp.array([[0.3, -1.2]]), jax.random.key(0), (jnp.zeros(1), jnp.ones(1))
    process, predict = processes.gaussian(schedules.from_betas([0.75])), with_variance(0.5, 0.4)
    with pytest.raises(InputError, match="num_steps=1: variance='learned' needs at least 2 steps"):
        losses.hybrid(process, predict, key, x0, s, t, 1)
    with pytest.raises(InputError, match="num_steps=1"):
        losses.vlb(process, predict, key, x0, s, t, 1)
    xt = 0.5 * np.float64(x0) + np.sqrt(0.75) * np.float64(jax.random.normal(key, (1, 2)))
    estimate = (xt - np.sqrt(0.75) * 0.5 * xt) / 0.5
    want = 0.5 * ((np.float64(x0) - estimate) ** 2 / 0.75 + np.log(2 * np.pi * 0.75)).sum(1)
    np.testing.assert_allclose(losses.vlb(process, predict, key, x0, s, t, 1, "forward"), want, rtol=1e-5)
    # Bits need no variance: -log p of a fair coin for each.
    coin = losses.vlb(
        processes.binomial([0.75]), predictions.logits(lambda x, t: 0 * x), key, jnp.array([[0.0, 1.0]]), s, t, 1
    )
    np.testing.assert_allclose(coin, 2 * np.log(2), rtol=1e-5)


def test_steps_given_as_times_are_told():
    t = jnp.array([3, 500])
    with pytest.raises(InputError, match=r"t must be in \[0, 1\]"):
        losses.simple(PROCESS, scaled(1.0), jax.random.key(0), X0[:2], t)


def test_loss_is_a_mean_over_the_event_and_kept_per_example():
    x0 = X0[:6].reshape(3, 2, 3)
    loss = losses.simple(PROCESS, predictions.eps(lambda xt, t: jnp.zeros_like(xt)), jax.random.key(4), x0, T[:3])
    eps = jax.random.normal(jax.random.key(4), (3, 2, 3))
    np.testing.assert_allclose(loss, (np.float64(eps) ** 2).mean((1, 2)), rtol=1e-5)


def with_variance(w, v):
    def predict(xt, t):
        return Prediction(w * xt, "eps", v * jnp.ones_like(xt))

    return predict


@pytest.mark.slow
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


@pytest.mark.fast(1)
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


@pytest.mark.slow
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


@pytest.mark.slow
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
