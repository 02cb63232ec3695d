"""The bound against Gaussian data, where every term and the gap to log p are known, and against mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffjax import bounds, processes, reference, schedules
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.predictions import Prediction

S2 = 0.25  # variance of the data in all that follows
V = 0.3  # log-variance of the "learned" kernel, between log β̃ and log β
VARIANCES = ("posterior", "forward", "learned")


def optimal(schedule):
    """E[eps | x_t] for x_0 ~ N(0, S2)."""

    def predict(xt, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        slope = schedules.broadcast_to(sigma / (alpha**2 * S2 + sigma**2), xt)
        return Prediction(slope * xt, "eps", jnp.full_like(xt, V))

    return predict


def alpha_bars(betas, times):
    """ᾱ in float64 at any times: the rate is linear between grid points."""
    table = np.concatenate([[0.0], np.cumsum(-np.log1p(-np.float64(betas)))])
    return np.exp(-np.interp(np.float64(times) * len(betas), np.arange(len(table)), table))


def truth(betas, times, variance):
    """All terms of the bound of the optimal predictor on N(0, S2), one dimension, in float64, from first principles."""
    ab = alpha_bars(betas, times)
    beta = 1 - ab[1:] / ab[:-1]
    posterior = beta * (1 - ab[:-1]) / (1 - ab[1:])
    twice = alpha_bars(betas, min(2 * times[1], 1.0))
    small = posterior.copy()
    small[0] = (1 - twice / ab[1]) * (1 - ab[1]) / (1 - twice)
    with np.errstate(divide="ignore"):
        sigma2 = {"posterior": small, "forward": beta, "learned": np.exp(V * np.log(beta) + (1 - V) * np.log(small))}[
            variance
        ]
    mse = S2 * (1 - ab[1:]) / (ab[1:] * S2 + 1 - ab[1:])  # Var(x_0 | x_t)
    pull = np.sqrt(ab[:-1]) * beta / (1 - ab[1:])
    steps = 0.5 * ((pull**2 * mse + posterior)[1:] / sigma2[1:] - 1 - np.log(posterior[1:] / sigma2[1:]))
    reconstruction = 0.5 * (mse[0] / sigma2[0] + np.log(2 * np.pi * sigma2[0]))
    prior = 0.5 * (ab[-1] * S2 - ab[-1] - np.log1p(-ab[-1]))
    # The gap by its own formula: KL of the prior, and of each step's optimal variance w_t against the one used.
    v = ab * S2 + 1 - ab
    rho = v[:-1] * beta / v[1:] / sigma2
    gap = 0.5 * (v[-1] - 1 - np.log(v[-1])) + 0.5 * (rho - 1 - np.log(rho)).sum()
    entropy = 0.5 * np.log(2 * np.pi * np.e * S2)
    assert abs(prior + steps.sum() + reconstruction - entropy - gap) < 1e-9
    return {
        "prior": prior,
        "steps": steps,
        "reconstruction": reconstruction,
        "mse": mse,
        "total": entropy + gap,
        "gap": gap,
    }


CHAINS = {"linear": schedules.linear(), "cosine": schedules.cosine()}
CHAIN_BETAS = {
    "linear": np.linspace(1e-4, 0.02, 1000),
    "cosine": np.minimum(
        1
        - np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        / np.cos((np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2,
        0.999,
    ),
}


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_gap_is_exact(name, variance):
    # Every term is quadratic in (x_0, eps): Gauss-Hermite nodes give the expectation itself, so 1e-5 of float32
    # summed over 1000 steps is all that may be missing.
    schedule = CHAINS[name]
    process, predict = processes.gaussian(schedule), optimal(schedule)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    x0, eps = (g.reshape(-1, 1) for g in np.meshgrid(nodes * np.sqrt(S2), nodes, indexing="ij"))
    x0, eps, weights = (jnp.asarray(a, jnp.float32) for a in (x0, eps, weights))

    def noised(t):
        q = process.marginal(x0, t)
        return q.mean + jnp.sqrt(q.variance) * eps

    @jax.jit
    def total():
        def cost(i):
            s, t = schedule.times[i - 1], schedule.times[i]
            return weights @ bounds.step_cost(process, predict, x0, noised(t), s, t, variance)[0]

        t = schedule.times[1]
        first = weights @ bounds.reconstruction_cost(process, predict, x0, noised(t), t, variance)[0]
        prior = weights @ process.marginal(x0, 1.0).kl(process.prior(x0.shape))[:, 0]
        return jax.lax.map(cost, jnp.arange(2, 1001)).sum(), first, prior

    got = [float(x) for x in total()]
    want = truth(CHAIN_BETAS[name], np.arange(1001) / 1000, variance)
    assert abs(sum(got) - want["total"]) < 1e-5
    assert abs(got[0] - want["steps"].sum()) < 1e-5
    assert abs(got[1] - want["reconstruction"]) < 1e-5
    assert abs(got[2] - want["prior"]) < 1e-6


GRIDS = {"whole": np.arange(1001) / 1000, "every 20th": np.arange(51) / 50, "uneven": np.arange(26) ** 2 / 625.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "grid", "variance"),
    [
        ("linear", "whole", "posterior"),
        ("cosine", "every 20th", "forward"),
        ("cosine", "uneven", "learned"),
    ],
)
def test_diffusion_estimates_every_term(name, grid, variance):
    schedule, times = CHAINS[name], np.round(GRIDS[grid] * 1000) / 1000
    batch = 4000
    x0 = jnp.sqrt(S2) * jax.random.normal(jax.random.key(0), (batch, 1))
    run = jax.jit(
        lambda key, times: bounds.diffusion(processes.gaussian(schedule), optimal(schedule), key, x0, times, variance)
    )
    # Descending, as samplers want it: either order is the same grid.
    terms = jax.tree.map(np.float64, run(jax.random.key(1), jnp.asarray(times[::-1].copy(), jnp.float32)))
    want = truth(CHAIN_BETAS[name], times, variance)

    total = terms.prior + terms.diffusion.sum(0) + terms.reconstruction
    np.testing.assert_allclose(terms.total, total, rtol=1e-6)
    se = total.std() / np.sqrt(batch)
    assert se < 0.1, "an error bar that hides the gap would prove nothing"
    assert abs(total.mean() - want["total"]) < 5 * se + 1e-4
    # L_T depends on x_0 alone
    ab = alpha_bars(CHAIN_BETAS[name], 1.0)
    closed = 0.5 * (ab * np.float64(x0[:, 0]) ** 2 - ab - np.log1p(-ab))
    np.testing.assert_allclose(terms.prior, closed, rtol=1e-3, atol=2e-7)
    # every single term, in its row
    for got, exact in ((terms.diffusion, want["steps"]), (terms.squared_error, want["mse"])):
        assert got.shape == (len(exact), batch)
        assert (np.abs(got.mean(1) - exact) < 5 * got.std(1) / np.sqrt(batch) + 1e-6).all()
    # every term has noise of its own: next to t = 0 the errors are nearly eps alone
    assert np.abs(np.corrcoef(terms.squared_error[:3]) - np.eye(3)).max() < 5 / np.sqrt(batch)
    first = terms.reconstruction
    assert abs(first.mean() - want["reconstruction"]) < 5 * first.std() / np.sqrt(batch)


@pytest.mark.slow
@pytest.mark.parametrize("num_terms", [1, 3])
def test_num_terms_is_unbiased(num_terms):
    schedule, times, batch = CHAINS["linear"], np.arange(6) / 5, 40_000  # a fifth more or less would show
    x0 = jnp.sqrt(S2) * jax.random.normal(jax.random.key(2), (batch, 1))
    run = jax.jit(
        lambda key: bounds.diffusion(
            processes.gaussian(schedule), optimal(schedule), key, x0, jnp.asarray(times), num_terms=num_terms
        )
    )
    terms = jax.tree.map(np.float64, run(jax.random.key(3)))
    assert terms.diffusion.shape == (num_terms, batch)
    assert terms.squared_error.shape == (num_terms + 1, batch)
    got, want = terms.diffusion.sum(0), truth(CHAIN_BETAS["linear"], times, "posterior")["steps"].sum()
    se = got.std() / np.sqrt(batch)
    assert 5 * se < 0.1 * want
    assert abs(got.mean() - want) < 5 * se
    # Examples have times of their own: with one shared time per row the batch mean would be far off this SE.
    if num_terms == 1:
        assert len(np.unique(np.round(got, 3))) > 100


@pytest.mark.slow
def test_as_many_terms_as_steps_is_the_whole_sum():
    schedule, x0 = CHAINS["linear"], jnp.ones((3, 2))

    @jax.jit
    def three():
        args = (processes.gaussian(schedule), optimal(schedule), jax.random.key(0), x0, jnp.arange(11) / 10)
        return [bounds.diffusion(*args, num_terms=n).diffusion for n in (None, 9, 50)]

    whole, exactly, more = three()
    np.testing.assert_array_equal(whole, exactly)
    np.testing.assert_array_equal(whole, more)


@pytest.mark.slow
def test_one_step_with_forward_variance():
    # times = (0, 1): total = L_T + E -log N(x_0; x̂_0, β), β = 1 - ᾱ_T
    schedule, batch = CHAINS["cosine"], 4000
    x0 = jnp.sqrt(S2) * jax.random.normal(jax.random.key(0), (batch, 1))
    args = (processes.gaussian(schedule), optimal(schedule), jax.random.key(1), x0)
    terms = bounds.diffusion(*args, jnp.array([0.0, 1.0]), "forward")
    assert terms.diffusion.shape == (0, batch)
    want = truth(CHAIN_BETAS["cosine"], np.array([0.0, 1.0]), "forward")["total"]
    assert abs(terms.total.mean() - want) < 5 * terms.total.std() / np.sqrt(batch)
    with pytest.raises(InputError, match="times"):
        bounds.diffusion(*args, jnp.array([0.0, 1.0]), "posterior")
    with pytest.raises(InputError, match="num_terms"):
        bounds.diffusion(*args, jnp.array([0.0, 0.5, 1.0]), num_terms=0)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_reconstruction_with_bins(variance):
    # A model that says x_0 = 0.3 whatever it sees: P(bin) by scipy, and all 256 of them sum to 1.
    schedule = CHAINS["linear"]
    t = schedule.times[1]
    bins = np.linspace(-1, 1, 256)
    x0 = jnp.asarray(bins[:, None], jnp.float32)

    def predict(xt, t):
        return Prediction(jnp.full_like(xt, 0.3), "x0")

    cost, error = bounds.reconstruction_cost(
        processes.gaussian(schedule), predict, x0, 0.3 * jnp.ones_like(x0), t, variance, DiscretizedNormal
    )
    np.testing.assert_allclose(error, (bins - 0.3) ** 2, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(np.exp(-np.float64(cost)).sum(), 1.0, atol=1e-5)
    betas = CHAIN_BETAS["linear"]
    ab = np.cumprod(1 - betas)
    # For both: the code of Ho et al. decodes with β̃_2 (5.453e-5) at the first step, and not with β_1 = 1e-4.
    sigma = np.sqrt(betas[1] * (1 - ab[0]) / (1 - ab[1]))
    np.testing.assert_allclose(sigma**2, 5.453e-5, rtol=1e-4)
    upper = np.where(bins > 0.999, 1.0, scipy.stats.norm.cdf((bins + 1 / 255 - 0.3) / sigma))
    lower = np.where(bins < -0.999, 0.0, scipy.stats.norm.cdf((bins - 1 / 255 - 0.3) / sigma))
    likely = upper - lower > 1e-6
    assert likely.sum() >= 8
    np.testing.assert_allclose(cost[likely], -np.log((upper - lower)[likely]), rtol=1e-3)


@pytest.mark.slow
def test_terms_sum_over_the_event():
    # N(0, S2 I) in 2 x 3 dimensions costs six times one dimension.
    schedule, times, batch = CHAINS["linear"], GRIDS["every 20th"], 3000
    x0 = jnp.sqrt(S2) * jax.random.normal(jax.random.key(4), (batch, 2, 3))
    run = jax.jit(
        lambda key: bounds.diffusion(processes.gaussian(schedule), optimal(schedule), key, x0, jnp.asarray(times))
    )
    total = np.float64(run(jax.random.key(5)).total)
    want = 6 * truth(CHAIN_BETAS["linear"], times, "posterior")["total"]
    assert abs(total.mean() - want) < 5 * total.std() / np.sqrt(batch)


@pytest.mark.slow
def test_rate_distortion_of_gaussian_data():
    schedule, times, batch = CHAINS["linear"], GRIDS["every 20th"], 4000
    x0 = jnp.sqrt(S2) * jax.random.normal(jax.random.key(6), (batch, 3))
    terms = jax.jit(
        lambda key: bounds.diffusion(processes.gaussian(schedule), optimal(schedule), key, x0, jnp.asarray(times))
    )(jax.random.key(7))
    rate, rmse = (np.float64(x) for x in bounds.rate_distortion(terms, (3,)))
    want = truth(CHAIN_BETAS["linear"], times, "posterior")
    # A receiver of x_{t_i} has paid L_T and every step above t_i, and knows x_0 up to Var(x_0 | x_{t_i}).
    exact_rate = np.array([(want["prior"] + want["steps"][i:].sum()) / np.log(2) for i in range(50)])
    costs = np.float64(terms.diffusion)
    paid = np.cumsum(costs[::-1], 0)[::-1]
    se = np.append(paid.std(1), 0) / np.sqrt(batch) / (3 * np.log(2))
    assert (np.abs(rate - exact_rate) < 5 * se + 1e-6).all()
    assert rate[0] > 0.5 and (np.diff(rate) < 0).all()
    exact_rmse = np.sqrt(want["mse"])
    error = np.float64(terms.squared_error) / 3
    assert (np.abs(rmse - exact_rmse) < 5 * error.std(1) / np.sqrt(batch) / (2 * exact_rmse)).all()


def test_bits_per_dim():
    # A uniform distribution over 256 values costs 8 bits in every dimension.
    np.testing.assert_allclose(
        bounds.bits_per_dim(jnp.full(3, 32 * 32 * 3 * np.log(256.0)), (32, 32, 3)), 8.0, rtol=1e-6
    )


@pytest.mark.slow
def test_importance_weighted():
    # z ~ N(0, 1), x | z ~ N(z, 1): log p(x) = log N(x; 0, 2), posterior N(x/2, 1/2).
    x, n = 0.7, 20_000
    log_p = scipy.stats.norm(0, np.sqrt(2)).logpdf(x)
    z = np.random.default_rng(0).normal(size=(64, n))

    def log_weights(mean, std):
        q = mean + std * z
        joint = scipy.stats.norm.logpdf(q) + scipy.stats.norm.logpdf(x - q)
        return jnp.asarray(joint - scipy.stats.norm(mean, std).logpdf(q), jnp.float32)

    exact = bounds.importance_weighted(log_weights(x / 2, np.sqrt(0.5)))
    np.testing.assert_allclose(exact, log_p, atol=1e-5)  # for every draw
    rough = log_weights(0.0, 1.3)
    means = [np.asarray(bounds.importance_weighted(rough[:k])).mean() for k in (1, 2, 8, 64)]
    ses = [np.asarray(bounds.importance_weighted(rough[:k])).std() / np.sqrt(n) for k in (1, 2, 8, 64)]
    assert all(b - a > 5 * s for a, b, s in zip(means, means[1:], ses, strict=False))
    assert means[-1] < log_p + 5 * ses[-1] and log_p - means[-1] < 0.01
    # k = 1 is the evidence bound, -KL(q ‖ posterior) below log p
    kl = 0.5 * (1.69 / 0.5 + (x / 2) ** 2 / 0.5 - 1 - np.log(1.69 / 0.5))
    assert abs(means[0] - (log_p - kl)) < 5 * ses[0]
    np.testing.assert_allclose(
        bounds.importance_weighted(rough.T, axis=1), bounds.importance_weighted(rough), rtol=1e-5
    )
    np.testing.assert_allclose(bounds.importance_weighted(jnp.array([-1000.0, -1000.0])), -1000.0)


def test_bound_of_a_mixture_closes_on_its_log_density():
    mix = reference.GaussianMixture(
        jnp.array([0.4, 0.6]), jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.stack([0.2 * jnp.eye(2), 0.4 * jnp.eye(2)])
    )
    schedule, batch = CHAINS["linear"], 3000
    x0 = mix.sample(jax.random.key(8), batch)
    excess, ses = [], []
    for steps in (4, 160):
        times = jnp.asarray(np.round(np.linspace(0, 1000, steps + 1)) / 1000, jnp.float32)
        run = jax.jit(
            lambda key, times=times: bounds.diffusion(
                processes.gaussian(schedule), mix.predict(schedule), key, x0, times, "forward"
            )
        )
        gap = np.float64(run(jax.random.key(9)).total) + np.float64(mix.log_prob(x0))
        excess.append(gap.mean())
        ses.append(gap.std() / np.sqrt(batch))
    # An upper bound on -log p, looser for the shorter chain; the gap falls as 1/T.
    assert excess[1] > -5 * ses[1]
    assert excess[0] > 5 * ses[0] and excess[0] > excess[1] + 5 * ses[1]
    assert abs(excess[1]) < 0.01 + 5 * ses[1]


@pytest.mark.slow
def test_gradient_of_network_and_schedule():
    x0 = jax.random.normal(jax.random.key(0), (4, 2))

    def cost(params):
        schedule = schedules.VP(params["low"], params["high"])

        def predict(xt, t):
            return Prediction(params["w"] * xt, "eps", jnp.full_like(xt, params["v"]))

        args = (processes.gaussian(schedule), predict, jax.random.key(1), x0.astype(params["w"].dtype))
        return bounds.diffusion(*args, jnp.arange(4) / 3, "learned").total.mean()  # β and β̃ both

    with jax.enable_x64(True):
        params = {"w": jnp.array(0.4), "v": jnp.array(0.6), "low": jnp.array(0.1), "high": jnp.array(5.0)}
        both = jax.jit(jax.value_and_grad(cost))
        grad = both(params)[1]
        for name, value in params.items():
            up, down = (both({**params, name: value + h})[0] for h in (1e-6, -1e-6))
            np.testing.assert_allclose(grad[name], (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_chain():
    schedule = schedules.vp()
    x0 = jnp.ones((8, 64, 64))

    def temporary(steps):
        f = jax.jit(
            lambda key: (
                bounds.diffusion(
                    processes.gaussian(schedule), optimal(schedule), key, x0, jnp.linspace(0, 1, steps + 1)
                ).total
            )
        )
        return f.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    assert temporary(1000) < temporary(10) + 20 * 4 * 8 * 1000  # rows of (steps, batch), and no x_t


@pytest.mark.parametrize("bound", [bounds.diffusion, bounds.trajectory_log_weight])
def test_grids_out_of_range(bound):
    args = (processes.gaussian(CHAINS["linear"]), optimal(CHAINS["linear"]), jax.random.key(0), jnp.zeros((1, 1)))
    for times in (jnp.arange(0, 1001, 250), jnp.array([0.0, 0.5, 1.5]), jnp.array([0.0, jnp.nan, 1.0])):
        with pytest.raises(InputError, match=r"times must be in \[0, 1\]"):
            bound(*args, times)


@pytest.mark.slow
def test_eager_calls_compile_once(compilations):
    def run(low, shrink):
        process = processes.gaussian(schedules.VP(low, 20.0))
        args = (process, lambda xt, t: Prediction(shrink * xt, "eps"), jax.random.key(0), jnp.ones((2, 3)))
        times = jnp.linspace(0, 1, 4)
        return bounds.diffusion(*args, times, num_terms=1).diffusion, bounds.trajectory_log_weight(*args, times)

    parameters = [tuple(row) for row in jnp.array([[0.1, 0.5], [0.2, 0.6]])]
    first = run(*parameters[0])
    compilations.clear()
    second = run(*parameters[1])
    assert not compilations
    assert all((np.abs(np.asarray(a) - np.asarray(b)) > 1e-3).all() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", False), ("float32", True)])
def test_types(dtype, wide):
    # N(0, I), whose exact reversal is the chain itself: w = p(x_0) whatever the trajectory, and every term in 32 bits.
    x0 = jnp.array([[0.5, -1.0], [0.25, 2.0]], dtype)

    def everything(x0, times):
        process = processes.gaussian(schedules.linear(20, 0.01, 0.2))
        args = (process, lambda xt, t: Prediction(-xt, "score"), jax.random.key(0), x0, times, "forward")
        return bounds.trajectory_log_weight(*args), bounds.diffusion(*args, DiscretizedNormal, 2)

    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        got = jax.jit(everything)(x0, jnp.linspace(0, 1, 5, dtype=float))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(np.float32)}
    want = -0.5 * (np.float64(x0) ** 2 + np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(got[0], want, rtol=1e-5)


def test_bits_in_one_step():
    # No variance is needed: a fair coin costs log 2, and the prior term is KL(B(1 - β/2) ‖ B(½)) of the one beta.
    terms = bounds.diffusion(
        processes.binomial([0.75]),
        lambda xt, t: Prediction(0 * xt, "logits"),
        jax.random.key(0),
        jnp.array([[0.0, 1.0]]),
        jnp.array([0.0, 1.0]),
    )
    np.testing.assert_allclose(terms.reconstruction, 2 * np.log(2), rtol=1e-5)
    q = 0.75 / 2
    np.testing.assert_allclose(terms.prior, 2 * (np.log(2) + q * np.log(q) + (1 - q) * np.log(1 - q)), rtol=1e-5)
