"""The weight of a forward trajectory: exact chains, where every weight is known, quadrature and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bounds, predictions, processes, reference, schedules
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError

BETAS = np.array([0.3, 0.5, 0.8])  # three steps, a Gaussian chain short enough for quadrature
SHRINK = 0.7  # the model of that chain is wrong by this factor in x_0, so that its p(x_0) is not the data's
WEIGHTS, MEANS, VARIANCES = np.array([0.35, 0.65]), np.array([-1.2, 0.6]), np.array([0.1, 0.3])


def mixture(dimensions=1):
    means = MEANS[:, None] * np.linspace(1, -1, dimensions)
    return reference.GaussianMixture(
        jnp.asarray(WEIGHTS), jnp.asarray(means), jnp.asarray(VARIANCES[:, None, None] * np.eye(dimensions))
    )


def normal(x, mean, variance):
    return np.exp(-0.5 * (x - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


@pytest.mark.fast(1)
@pytest.mark.parametrize("name, every", [("linear", 1), ("cosine", 20)])
def test_every_weight_is_the_density_where_both_chains_are_one(name, every):
    # N(0, I) is stationary under q, so its exact reversal has p = q and w = p(x_0) whatever the trajectory.
    schedule = {"linear": schedules.linear(), "cosine": schedules.cosine()}[name]
    process, predict = processes.gaussian(schedule), predictions.score(lambda x, t: -x)
    x0 = jax.random.normal(jax.random.key(0), (100, 2, 3))
    run = jax.jit(
        lambda key: bounds.trajectory_log_weight(process, predict, key, x0, schedule.times[::every], "forward")
    )
    want = np.log(normal(np.float64(x0), 0, 1)).sum((1, 2))
    np.testing.assert_allclose(run(jax.random.key(1)), want, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("variance, decoder", [("posterior", None), ("learned", DiscretizedNormal)])
def test_mean_logarithm_is_the_bound(variance, decoder):
    schedule, n = schedules.linear(12, 0.01, 0.6), 2000
    mix = mixture(2)
    exact = mix.predict(schedule)

    def predict(xt, t):
        prediction = exact(xt, t)
        return predictions.Prediction(prediction.value, prediction.kind, jnp.full_like(xt, 0.3))

    x0 = mix.sample(jax.random.key(0), n)
    if decoder is not None:
        x0 = jnp.round(127.5 * jnp.clip(x0, -1, 1) + 127.5) / 127.5 - 1
    args = (x0, schedule.times, variance, decoder)
    process = processes.gaussian(schedule)
    log_w = np.float64(jax.jit(lambda k: bounds.trajectory_log_weight(process, predict, k, *args))(jax.random.key(1)))
    cost = np.float64(jax.jit(lambda k: bounds.diffusion(process, predict, k, *args).total)(jax.random.key(2)))
    assert abs((log_w + cost).mean()) < 5 * (log_w + cost).std() / np.sqrt(n)


def model_density(x0, variance):
    """p(x_0) of the three-step model that predicts SHRINK E[x_0 | x_t]: quadrature of its reverse chain, float64."""
    grid = np.linspace(-9, 9, 1801)
    ab = np.concatenate([[1.0], np.cumprod(1 - BETAS)])

    def kernel(x, i):
        """Mean and variance of p(x_{i-1} | x_i = x)."""
        density = WEIGHTS * normal(x[:, None], np.sqrt(ab[i]) * MEANS, ab[i] * VARIANCES + 1 - ab[i])
        shrink = np.sqrt(ab[i]) * VARIANCES / (ab[i] * VARIANCES + 1 - ab[i])
        means = MEANS + shrink * (x[:, None] - np.sqrt(ab[i]) * MEANS)  # E[x_0 | x_i, component]
        x0_hat = SHRINK * (density * means).sum(1) / density.sum(1)
        beta = BETAS[i - 1]
        mean = (np.sqrt(ab[i - 1]) * beta * x0_hat + np.sqrt(1 - beta) * (1 - ab[i - 1]) * x) / (1 - ab[i])
        j = max(i, 2)  # at the first step the posterior variance of the second
        tilde = BETAS[j - 1] * (1 - ab[j - 1]) / (1 - ab[j])
        return mean, beta if variance == "forward" else tilde

    density = normal(grid, 0, 1)
    for i in (3, 2):
        mean, var = kernel(grid, i)
        density = (normal(grid[:, None], mean, var) * density).sum(1) * (grid[1] - grid[0])
    mean, var = kernel(grid, 1)
    np.testing.assert_allclose(density.sum() * (grid[1] - grid[0]), 1, atol=1e-6)
    return (normal(np.reshape(x0, (-1, 1)), mean, var) * density).sum(1) * (grid[1] - grid[0])


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_mean_weight_is_the_density_and_more_trajectories_come_closer(variance):
    schedule, repeats, K = schedules.from_betas(BETAS), 500, 64
    process, exact = processes.gaussian(schedule), mixture().predict(schedule)
    predict = predictions.x0(lambda x, t: SHRINK * predictions.convert(exact(x, t), "x0", process, x, t))
    x0 = np.array([-1.5, -0.9, 0.2, 1.1])
    rows = jnp.asarray(np.tile(x0, repeats)[:, None], jnp.float32)

    @jax.jit
    def run(keys):
        return jax.lax.map(
            lambda key: bounds.trajectory_log_weight(process, predict, key, rows, schedule.times, variance), keys
        )

    log_w = run(jax.random.split(jax.random.key(0), K))
    log_p = np.log(model_density(x0, variance))
    ratio = np.exp(np.float64(log_w).reshape(-1, len(x0)) - log_p)
    assert (np.abs(ratio.mean(0) - 1) < 5 * ratio.std(0) / np.sqrt(len(ratio))).all()
    assert (ratio.std(0) / np.sqrt(len(ratio)) < 0.01).all()
    # L_1, L_8 and L_64 from the same weights, in 64, 8 and 1 groups.
    levels = [bounds.importance_weighted(log_w.reshape(K // k, k, -1), axis=1).mean(0) for k in (1, 8, 64)]
    levels = [np.float64(level).reshape(repeats, -1) for level in levels]
    for below, above in itertools.pairwise(levels):
        rise = above - below
        assert (rise.mean(0) > 5 * rise.std(0) / np.sqrt(repeats)).all()
    gap = log_p - levels[-1].mean(0)
    error = levels[-1].std(0) / np.sqrt(repeats)
    assert (gap > -5 * error).all() and (gap < 0.05 + 5 * error).all()


def test_weights_of_all_pixel_values_sum_to_one():
    schedule, n, bins = schedules.linear(5, 0.1, 0.8), 4000, 16
    process, predict = processes.gaussian(schedule), predictions.x0(lambda x, t: 0.4 * jnp.tanh(2 * x))
    x0 = jnp.tile(jnp.linspace(-1, 1, bins), n)[:, None]

    def decoder(mean, variance):
        return DiscretizedNormal(mean, variance, bins)

    log_w = jax.jit(
        lambda key: bounds.trajectory_log_weight(process, predict, key, x0, schedule.times, "forward", decoder)
    )(jax.random.key(0))
    total = np.exp(np.float64(log_w)).reshape(n, bins).sum(1)
    assert abs(total.mean() - 1) < 5 * total.std() / np.sqrt(n)
    assert total.std() / np.sqrt(n) < 0.02


def bit_network(xt, t):
    """Log-odds in which the bits and the time meet."""
    return 1.5 * (2 * xt - 1) * (1 - t[:, None]) + 0.8 * jnp.roll(xt, 1, axis=1) - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("betas, r", [([0.2, 0.3, 0.4], 0.2), ([1 / 3, 1 / 2, 1.0], 0.7)], ids=["partial", "paper"])
def test_bits_against_the_list_of_all_trajectories(betas, r):
    states, num_steps, n = np.array(list(itertools.product((0.0, 1.0), repeat=2))), 3, 5000
    steps = [(1 - b) * np.eye(2) + b * np.array([1 - r, r]) for b in betas]  # [from, to], one bit
    to = [np.linalg.multi_dot([np.eye(2), np.eye(2), *steps[:i]]) for i in range(num_steps + 1)]

    def forward(i):
        """q(x_i | x_{i-1}) as a matrix over the states, [from, to]."""
        one = steps[i - 1]
        return np.array(
            [[np.prod([one[int(a), int(b)] for a, b in zip(x, y, strict=True)]) for y in states] for x in states]
        )

    def reverse(i):
        """p(x_{i-1} | x_i), [x_i, x_{i-1}]: Bayes' rule for either x_0, weighted by the network's probability of it."""
        table = np.zeros((4, 4))
        logits = np.asarray(bit_network(jnp.asarray(states), jnp.full(4, i / num_steps)), np.float64)
        for a, x in enumerate(states.astype(int)):
            on = 1 / (1 + np.exp(-logits[a]))
            for b, y in enumerate(states.astype(int)):
                p = 1.0
                for j in range(2):
                    bit = 0.0
                    for x0, prob in ((0, 1 - on[j]), (1, on[j])):
                        joint = to[i - 1][x0] * steps[i - 1][:, x[j]]
                        bit += prob * joint[y[j]] / joint.sum()
                    p *= bit
                table[a, b] = p
        return table

    q, p = [forward(i) for i in (1, 2, 3)], [reverse(i) for i in (1, 2, 3)]
    prior = np.prod(np.where(states == 1, r, 1 - r), 1)
    process = processes.binomial(betas, r)
    predict = predictions.logits(bit_network)
    rows = jnp.tile(jnp.asarray(states, jnp.float32), (n, 1))
    run = jax.jit(lambda key: bounds.trajectory_log_weight(process, predict, key, rows, process.schedule.times))
    log_w = np.float64(run(jax.random.key(0))).reshape(n, 4)
    for x0 in range(4):
        weights, chances = [], []
        for a, b, c in itertools.product(range(4), repeat=3):
            chances.append(q[0][x0, a] * q[1][a, b] * q[2][b, c])
            weights.append(prior[c] * p[2][c, b] * p[1][b, a] * p[0][a, x0] / chances[-1])
        weights, chances = np.array(weights), np.array(chances)
        density = (prior @ p[2] @ p[1] @ p[0])[x0]
        np.testing.assert_allclose(chances @ weights, density)
        # Every weight drawn is one of the 64, and each that is not too rare comes as often as q says.
        distance = np.abs(log_w[:, x0, None] - np.log(weights))
        assert distance.min(1).max() < 1e-4
        for value in np.unique(np.log(weights).round(3)):
            chance = chances[np.abs(np.log(weights) - value) < 2e-3].sum()
            if n * chance < 30:
                continue
            share = (np.abs(log_w[:, x0] - value) < 2e-3).mean()
            assert abs(share - chance) < 5 * np.sqrt(chance * (1 - chance) / n)
        w = np.exp(log_w[:, x0])
        assert abs(w.mean() - density) < 5 * w.std() / np.sqrt(n)
        assert abs(log_w[:, x0].mean() - chances @ np.log(weights)) < 5 * log_w[:, x0].std() / np.sqrt(n)


def test_certain_bits_are_not_nan():
    # Who knows x_0 takes q(x_s | x_t, x_0) as the reverse chain: w = π(x_T) / q(x_T | x_0), which the paper's betas
    # make 1. Log-odds of x_0 are infinite here; to be wrong in one bit costs the whole weight.
    x0 = jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    process = processes.binomial(1 / np.arange(50, 0, -1), 0.2)
    wrong = jnp.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    @jax.jit
    def run(key, belief):
        predict = predictions.x0(lambda x, t: belief)
        return bounds.trajectory_log_weight(process, predict, key, x0, process.schedule.times)

    np.testing.assert_allclose(run(jax.random.key(0), x0), 0, atol=1e-4)
    assert run(jax.random.key(0), jnp.abs(x0 - wrong))[1] == -jnp.inf


@pytest.mark.slow
def test_memory_does_not_grow_with_the_chain():
    process, predict = processes.gaussian(schedules.vp()), predictions.score(lambda x, t: -x)
    x0 = jnp.ones((8, 64, 64))

    def temporary(steps):
        times = jnp.linspace(0, 1, steps + 1)
        f = jax.jit(lambda key: bounds.trajectory_log_weight(process, predict, key, x0, times))
        return f.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    assert temporary(1000) < temporary(10) + 20 * 1000  # the grid itself, and no x_t


def test_a_grid_too_short_is_named():
    process, predict = processes.gaussian(schedules.linear(4)), predictions.score(lambda x, t: -x)
    args = (process, predict, jax.random.key(0), jnp.zeros((1, 1)), jnp.array([0.0, 1.0]))
    with pytest.raises(InputError, match="times has 2 entries"):
        bounds.trajectory_log_weight(*args)
    assert jax.eval_shape(lambda: bounds.trajectory_log_weight(*args, "forward")).shape == (1,)  # one step will do
