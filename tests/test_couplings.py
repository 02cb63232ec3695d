"""Couplings against brute force, the optimality of entropic plans, and order statistics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from diffjax.errors import InputError
from diffjax.interpolants import couplings

KEY = jax.random.key(0)


def points(seed, n, *event):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *event)).astype(np.float32), rng.normal(1.0, 2.0, (n, *event)).astype(np.float32)


def brute_force(cost):
    """The best of all permutations, in float64."""
    rows = np.arange(len(cost))
    return min(itertools.permutations(rows), key=lambda p: cost[rows, list(p)].sum())


def costs(source, x0):
    flat = [np.float64(x).reshape(len(x), -1) for x in (x0, source)]
    return ((flat[0][:, None] - flat[1]) ** 2).sum(-1)


@pytest.mark.fast(3)
@pytest.mark.parametrize("n", [2, 5, 6, 3, 4])
def test_optimal_is_the_best_of_all_permutations(n):
    for seed in range(4):
        source, x0 = points(seed, n, 3, 2)
        found = np.asarray(couplings.optimal(KEY, source, x0))
        assert tuple(found) == brute_force(costs(source, x0))
        # Far from the origin float32 has few digits left of the squares, but the points are centred.
        assert np.array_equal(couplings.optimal(KEY, source + np.float32(2048.0), x0), found)


def test_labels_keep_the_pairs_within_a_class():
    source, x0 = points(0, 6, 2)
    label = np.array([0, 1, 1, -1, 0, 1])
    found = np.asarray(jax.jit(couplings.optimal)(KEY, source, x0, label))
    cost = np.where(label[:, None] == label, costs(source, x0), 1e9)
    assert tuple(found) == brute_force(cost)
    assert np.array_equal(label[found], label)
    assert tuple(found) != brute_force(costs(source, x0))
    log_plan = jax.jit(lambda *pair: couplings.log_entropic_plan(*pair, 3.0, 1000, label))(source, x0)
    np.testing.assert_array_equal(np.exp(log_plan) > 0, label[:, None] == label)


def test_an_assignment_within_jit_vmap_and_grad():
    source, x0 = points(1, 5, 2)

    @jax.jit
    @jax.value_and_grad
    def cost(scale, source):
        moved = scale * source
        return ((moved[couplings.optimal(KEY, moved, x0)] - x0) ** 2).sum()

    value, slope = cost(1.5, source)
    best = source[list(brute_force(costs(1.5 * source, x0)))]
    np.testing.assert_allclose(value, ((1.5 * best - x0) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(slope, (2 * best * (1.5 * best - x0)).sum(), rtol=1e-4)


def test_an_example_that_is_not_a_number_stops_nothing():
    source, x0 = points(2, 4, 2)
    source[1] = np.nan
    assert sorted(couplings.optimal(KEY, source, x0).tolist()) == [0, 1, 2, 3]


def test_paired_keeps_the_order_and_independent_draws_all_orders_alike():
    x = np.zeros((3, 2))
    np.testing.assert_array_equal(couplings.paired(KEY, x, x), [0, 1, 2])
    keys = jax.random.split(KEY, (6000, 3))  # one for each example, as in training
    orders = np.asarray(jax.jit(jax.vmap(lambda keys: couplings.independent(keys, x, x)))(keys))
    share = (orders[:, None] == np.array(list(itertools.permutations(range(3))))).all(-1).mean(0)
    assert (abs(share - 1 / 6) < 5 * np.sqrt(5 / 36 / 6000)).all()


def order_statistics(n):
    """E of the i-th smallest of n draws of N(0, 1), i = 1 .. n, by quadrature."""
    x = np.linspace(-9, 9, 4001)
    cdf, log_pdf = scipy.stats.norm.cdf(x), scipy.stats.norm.logpdf(x)
    i = np.arange(1, n + 1)[:, None]
    # The density of the i-th: pdf times that of Beta(i, n + 1 - i) at the cdf.
    density = np.exp(scipy.stats.beta.logpdf(np.clip(cdf, 1e-300, 1 - 1e-16), i, n + 1 - i) + log_pdf)
    return scipy.integrate.trapezoid(density * x, x, axis=1)


def test_the_least_loss_falls_as_the_batch_grows():
    """x_0 = 3 + N(0, 1) from N(0, 1): pairs are sorted, E|x_1 - x_0 + 3|² = 2 (1 - mean_i E[x_(i)]²).

    That is the squared error of the constant velocity -3 at every t, and so no less than the least loss.
    """
    sizes, found = (4, 16, 64), []
    for n in sizes:
        source, x0 = np.random.default_rng(n).normal(size=(2, 4096 // n, n, 1)).astype(np.float32)
        optimal = jax.jit(jax.vmap(lambda source, x0: source[couplings.optimal(KEY, source, x0)] - x0 - 3.0))
        loss = (np.asarray(optimal(source, x0 + 3.0) + 6.0) ** 2).mean((1, 2))
        want = 2 * (1 - (order_statistics(n) ** 2).mean())
        assert abs(loss.mean() - want) < 5 * loss.std() / np.sqrt(len(loss))
        found.append(loss.mean())
    slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
    assert -1.0 < slope < -0.7  # log log n / n: -0.85 of these three sizes; independent pairs have 2.0 at all


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_an_entropic_plan_is_the_one_that_is_optimal(epsilon):
    """Two by two: π_11 = π_22 = p/2 with (p/(1-p))² = exp(-(c_11 + c_22 - c_12 - c_21)/ε). Any size: log π + c/ε is a
    sum of a row's number and a column's, and all rows and columns have the sum 1/n."""
    source, x0 = points(3, 2, 3)
    cost = costs(source, x0)
    ratio = np.exp(-(cost[0, 0] + cost[1, 1] - cost[0, 1] - cost[1, 0]) / (2 * epsilon))
    plan = jax.jit(lambda *pair: jnp.exp(couplings.log_entropic_plan(*pair, epsilon)))
    share = ratio / (1 + ratio)
    np.testing.assert_allclose(plan(source, x0), 0.5 * np.array([[share, 1 - share], [1 - share, share]]), atol=1e-5)
    source, x0 = points(4, 5, 3)
    found = np.float64(plan(source, x0))
    np.testing.assert_allclose(found.sum(0), 0.2, rtol=2e-3)
    np.testing.assert_allclose(found.sum(1), 0.2, rtol=1e-5)
    rest = np.log(found) + costs(source, x0) / epsilon
    np.testing.assert_allclose(rest - rest[:1] - rest[:, :1] + rest[0, 0], 0.0, atol=1e-4 * (1 + 30 / epsilon))


def test_sinkhorn_draws_its_plan_and_tends_to_the_optimal_one():
    source, x0 = points(5, 4, 2)
    plan = np.exp(jax.jit(lambda *pair: couplings.log_entropic_plan(*pair, 4.0))(source, x0))
    draw = jax.jit(jax.vmap(lambda key: couplings.sinkhorn(4.0)(jax.random.split(key, 4), source, x0)))
    drawn = np.asarray(draw(jax.random.split(KEY, 4000)))
    share = (drawn[:, :, None] == np.arange(4)).mean(0)
    error = np.sqrt(4 * plan * (1 - 4 * plan) / 4000)
    assert (abs(share - 4 * plan) < 5 * error + 1e-6).all()
    assert abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 5 / np.sqrt(4000)  # keys of their own
    sharp = jax.jit(couplings.sinkhorn(0.02, 5000))(KEY, source, x0)
    np.testing.assert_array_equal(sharp, couplings.optimal(KEY, source, x0))


@pytest.mark.slow
def test_entropic_pairs_of_gaussians_have_the_covariance_of_the_bridge():
    """N(0, s²) and N(0, 1) with ε = 2σ²: cov(x_0, x_1) = ½ (√(4 s² + σ⁴) - σ²)  (Bojilov & Galichon 2016)."""
    s, sigma, n = 2.0, 1.0, 256
    rng = np.random.default_rng(0)
    source, x0 = rng.normal(size=(40, n, 1)), s * rng.normal(size=(40, n, 1))
    plan = jax.jit(jax.vmap(lambda *pair: jnp.exp(couplings.log_entropic_plan(*pair, 2 * sigma**2))))
    found = np.einsum("bij,bi,bj->b", plan(source, x0), x0[..., 0], source[..., 0])
    want = 0.5 * (np.sqrt(4 * s**2 + sigma**4) - sigma**2)
    assert abs(found.mean() - want) < 5 * found.std() / np.sqrt(40)


def test_a_coupling_that_ignores_the_label_is_biased_for_the_conditional():
    """Classes N(∓3, ½²) from N(0, 1): without labels the class on the left gets the left half of the source, whose mean
    is -√(2/π) = -0.80, and its flow is never trained on the right half, from where a sampler starts as often."""
    n, num = 64, 60
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (num, n))
    x0 = (6.0 * label - 3.0 + 0.5 * rng.normal(size=(num, n)))[..., None]
    source = rng.normal(size=(num, n, 1))

    @jax.jit
    @jax.vmap
    def paired(source, x0, label):
        return source[couplings.optimal(KEY, source, x0)], source[couplings.optimal(KEY, source, x0, label)]

    ignoring, knowing = (np.float64(x)[..., 0] for x in paired(source, x0, label))
    left = label == 0
    assert ignoring[left].mean() == pytest.approx(-np.sqrt(2 / np.pi), abs=0.08)
    assert (ignoring[left] > 0).mean() < 0.12
    error = 1 / np.sqrt(left.sum())
    assert abs(knowing[left].mean()) < 5 * error
    assert abs((knowing[left] > 0).mean() - 0.5) < 5 * 0.5 * error
    # Within the class it is the same transport as ever: the pairs are sorted.
    assert np.corrcoef(knowing[0][left[0]], x0[0][left[0], 0])[0, 1] > 0.9


@pytest.mark.parametrize("name", couplings.COUPLINGS)
def test_bad_input(name):
    make = couplings.COUPLINGS[name]
    coupling = make(1.0) if name == "sinkhorn" else make()
    with pytest.raises(InputError, match=r"one shape, not source \(3, 2\) and x0 \(4, 2\)"):
        coupling(KEY, np.zeros((3, 2)), np.zeros((4, 2)))
    if name in ("paired", "independent"):
        return
    with pytest.raises(InputError, match="a batch of at least 2, not 1: raise batch_size"):
        coupling(KEY, np.zeros((1, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_epsilon(epsilon):
    with pytest.raises(InputError, match="epsilon"):
        couplings.sinkhorn(epsilon)
    with pytest.raises(InputError, match="iterations"):
        couplings.sinkhorn(1.0, 0)
