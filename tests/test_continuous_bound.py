"""The bound in continuous time where it is known: of Gaussian data, of a mixture, and of levels that are enumerated.

Expectations are quadratures: Gauss and Hermite over eps, Gauss and Legendre over t.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, logsumexp, softmax

from diffjax import continuous_bound, learned_schedule, reference
from diffjax.learned_schedule import Learned, least_variance

ENDS = (-6.0, 2.0)
MIXTURE = reference.GaussianMixture(jnp.array([0.3, 0.7]), jnp.array([[-1.0], [1.0]]), jnp.array([[[0.09]], [[0.16]]]))


def hermite(num):
    nodes, weights = np.polynomial.hermite_e.hermegauss(num)
    return nodes, weights / weights.sum()


def legendre(num):
    """On [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num)
    return (nodes + 1) / 2, weights / 2


def interior(place, height=3.0, units=8):
    """Units that rise about `place`, beside a linear part."""
    start, places = learned_schedule.interior(units), jnp.linspace(place - 0.1, place + 0.1, units)
    return start | {"b": -10.0 * places, "log_w": start["log_w"] + np.log(height)}


EARLY, LATE = interior(0.2), interior(0.8)


def exact_eps(z, gamma):
    """E[eps | z] of the mixture."""

    def one(z, gamma):
        alpha, sigma = learned_schedule.alpha_sigma(gamma)
        return -sigma * MIXTURE.at(alpha, sigma).score(z)

    return jax.vmap(one)(z, gamma)


def nodes_of_the_mixture(num_times=48, num=14):
    """x0 (n, 1), eps (n, 1), t (n,) and weights (n,) of a joint quadrature."""
    t, of_t = legendre(num_times)
    node, weight = hermite(num)
    rows = [
        (mean + std * a, b, time, share * u * v * w)
        for share, mean, std in ((0.3, -1.0, 0.3), (0.7, 1.0, 0.4))
        for (a, u), (b, v), (time, w) in itertools.product(
            zip(node, weight, strict=True), zip(node, weight, strict=True), zip(t, of_t, strict=True)
        )
    ]
    x0, eps, t, weights = np.array(rows, np.float32).T
    return x0[:, None], eps[:, None], t, weights


@pytest.fixture(scope="module")
def moments():
    """params -> the mean and the variance of the cost; and the training loss."""
    x0, eps, t, weights = nodes_of_the_mixture()

    def cost(gamma, rate):
        return continuous_bound.diffusion_cost(exact_eps, x0, eps, gamma, rate)

    def mean_and_variance(params):
        values = cost(*Learned(**params).rate(t))
        mean = weights @ values
        return mean, weights @ (values - mean) ** 2

    def loss(params):
        return weights @ least_variance(Learned(**params), t, cost)

    return jax.jit(mean_and_variance), jax.jit(jax.grad(loss)), jax.jit(jax.grad(lambda p: mean_and_variance(p)[1]))


def params_of(interior):
    return {"gamma_0": jnp.asarray(ENDS[0]), "gamma_1": jnp.asarray(ENDS[1]), "interior": interior}


def entropy_of_z(gamma):
    """h(z) of the mixture by the trapezoidal rule."""
    alpha2, sigma2 = expit(-gamma), expit(gamma)
    z = np.linspace(-8, 8, 40_001)
    densities = [
        share * np.exp(-0.5 * (z - alpha2**0.5 * mean) ** 2 / v) / np.sqrt(2 * np.pi * v)
        for share, mean, v in ((0.3, -1.0, alpha2 * 0.09 + sigma2), (0.7, 1.0, alpha2 * 0.16 + sigma2))
    ]
    p = np.sum(densities, 0)
    return -np.trapezoid(p * np.log(np.maximum(p, 1e-300)), z)


def information(gamma):
    """I(x; z) = h(z) - h(z | x)."""
    return entropy_of_z(gamma) - 0.5 * np.log(2 * np.pi * np.e * expit(gamma))


def test_the_bound_is_the_information_whatever_the_interior(moments):
    """½ ∫ E|eps - ê|² dgamma of the exact predictor is I(x; z_0) - I(x; z_1) (Guo, Shamai and Verdu 2005)."""
    mean_and_variance, _, _ = moments
    (early, spread_early), (late, spread_late) = (mean_and_variance(params_of(u)) for u in (EARLY, LATE))
    positions = [float(Learned(*ENDS, u).position(0.5)) for u in (EARLY, LATE)]
    assert positions[0] - positions[1] > 0.5  # the two schedules are far apart
    expected = information(ENDS[0]) - information(ENDS[1])
    np.testing.assert_allclose([early, late], expected, rtol=2e-4)
    assert abs(spread_early / spread_late - 1) > 0.5  # the variance is what the interior changes


@pytest.mark.fast(1)
@pytest.mark.parametrize("name", ["early", "late"])
def test_the_interior_descends_the_variance_and_the_ends_the_bound(name, moments):
    mean_and_variance, gradient, of_variance = moments
    params = params_of({"early": EARLY, "late": LATE}[name])
    found, explicit = gradient(params), of_variance(params)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(explicit["interior"]))
    for a, b in zip(jax.tree.leaves(found["interior"]), jax.tree.leaves(explicit["interior"]), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-3 * largest)
    # By differences, along the direction of the gradient.
    size = float(jnp.sqrt(sum((x**2).sum() for x in jax.tree.leaves(found["interior"]))))
    step = 0.02

    def variance(sign):
        moved = jax.tree.map(lambda x, g: x + sign * step * g / size, params["interior"], found["interior"])
        return float(mean_and_variance(params_of(moved))[1])

    np.testing.assert_allclose((variance(1) - variance(-1)) / (2 * step), size, rtol=0.01)
    # d/dgamma of ½ ∫ m(gamma) dgamma is m at that end, m the least mean square error of eps.
    x0, eps, _, weights = nodes_of_the_mixture(num_times=1)
    for end, gamma, sign in (("gamma_0", ENDS[0], -1), ("gamma_1", ENDS[1], 1)):
        full = np.full(len(x0), gamma, np.float32)
        half_square = jax.jit(continuous_bound.diffusion_cost, static_argnums=0)(exact_eps, x0, eps, full, full**0)
        np.testing.assert_allclose(found[end], sign * weights @ np.asarray(half_square), rtol=2e-3, atol=5e-4)


@pytest.mark.slow
def test_descent_of_the_interior_finds_the_schedule_of_least_variance(moments):
    """E[l²] = ∫ gamma'² h dt, h = E[(l/gamma')² | gamma], is least where gamma' √h is constant: (∫ √h dgamma)²."""
    mean_and_variance, gradient, _ = moments
    x0, eps, _, weights = nodes_of_the_mixture(num_times=1)
    cost = jax.jit(continuous_bound.diffusion_cost, static_argnums=0)
    grid, roots = np.linspace(*ENDS, 161, dtype=np.float32), []
    for gamma in grid:
        full = np.full(len(x0), gamma)
        roots.append(np.sqrt(weights @ np.asarray(cost(exact_eps, x0, eps, full, full**0)) ** 2))
    least = np.trapezoid(roots, grid) ** 2

    def mean_square(interior):
        mean, variance = mean_and_variance(params_of(interior))
        return float(mean), float(variance + mean**2)

    moved, optimizer = LATE, optax.adam(0.05)
    state = optimizer.init(moved)
    for _ in range(300):
        updates, state = optimizer.update(gradient(params_of(moved))["interior"], state)
        moved = optax.apply_updates(moved, updates)
    (mean, start), (mean_moved, end) = mean_square(LATE), mean_square(moved)
    assert start > 1.3 * least
    assert 0.99 * least < end < 1.03 * least
    np.testing.assert_allclose(mean_moved, mean, rtol=1e-3)


def test_of_gaussian_data_it_is_a_difference_of_softplus():
    """x ~ N(0, 1): ê = sigma z leaves E|eps - ê|² = sigmoid(-gamma); the prior's cost is 0 in the mean."""
    node, weight = hermite(4)  # exact for squares
    t, of_t = legendre(40)
    x0, eps, t = (a.ravel().astype(np.float32) for a in np.meshgrid(node, node, t, indexing="ij"))
    weights = (weight[:, None, None] * weight[None, :, None] * of_t).ravel()

    def predict_eps(z, gamma):
        return jnp.sqrt(jax.nn.sigmoid(gamma))[:, None] * z

    schedule = Learned(-13.3, 5.0, LATE)

    @jax.jit
    def cost(t):
        return continuous_bound.diffusion_cost(predict_eps, x0[:, None], eps[:, None], *schedule.rate(t))

    expected = 0.5 * (np.log1p(np.exp(13.3)) - np.log1p(np.exp(-5.0)))
    np.testing.assert_allclose(weights @ np.asarray(cost(t)), expected, rtol=1e-4)
    prior = np.asarray(jax.jit(continuous_bound.prior_cost)(node[:, None].astype(np.float32), 5.0))
    s2 = expit(5.0)
    np.testing.assert_allclose(prior, 0.5 * ((1 - s2) * node**2 + s2 - 1 - np.log(s2)), rtol=1e-4)


@pytest.mark.parametrize(("levels", "gamma_0"), [(2, 1.0), (17, -7.7), (256, -13.3)])
def test_the_reconstruction_is_a_distribution_over_levels(levels, gamma_0):
    """The probabilities of all levels of a pixel sum to 1, and are those of Bayes' rule with a uniform prior."""
    z = np.linspace(-1.3, 1.3, 7, dtype=np.float32)[:, None]
    values = np.linspace(-1, 1, levels)
    cost = jax.jit(lambda x: continuous_bound.reconstruction_cost(x, z, gamma_0, levels))
    found = np.stack([cost(np.full_like(z, v)) for v in values], 1)
    np.testing.assert_allclose(np.exp(-found).sum(1), 1.0, rtol=1e-4)
    log_joint = -0.5 * (z - expit(-gamma_0) ** 0.5 * values) ** 2 / expit(gamma_0)
    near = found < 20
    np.testing.assert_allclose(found[near], (logsumexp(log_joint, 1, keepdims=True) - log_joint)[near], atol=2e-3)


def test_it_bounds_the_entropy_of_levels_with_the_gap_that_theory_gives():
    """Two dependent pixels of three levels, and the exact predictor. Then -E log P(x) = H is known, and so is the gap:

    total - H = KL(q(z_1) ‖ N(0, I)) + E KL(p(x | z_0) ‖ P(x | z_0))
    """
    states = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=2)))
    p = np.array([8, 1, 2, 1, 4, 1, 3, 1, 5]) / 26
    ends = (-1.5, 2.0)
    node, weight = hermite(24)
    pairs, of_pair = np.array(list(itertools.product(node, node))), np.outer(weight, weight).ravel()

    def predict_eps(z, gamma):
        alpha, sigma = (a[:, None] for a in learned_schedule.alpha_sigma(gamma))
        distance = ((z[:, None, :] - alpha[:, None] * states) ** 2).sum(-1) / (2 * sigma**2)
        x = jax.nn.softmax(np.log(p).astype(np.float32) - distance, axis=-1) @ jnp.asarray(states, jnp.float32)
        return (z - alpha * x) / sigma

    x0, eps = np.repeat(states, len(pairs), 0).astype(np.float32), np.tile(pairs, (9, 1)).astype(np.float32)
    weights = np.outer(p, of_pair).ravel()
    schedule = Learned(*ends, EARLY)

    @jax.jit
    def diffusion(t):
        gamma, rate = schedule.rate(jnp.full(len(x0), t))
        return continuous_bound.diffusion_cost(predict_eps, x0, eps, gamma, rate)

    total = sum(w * (weights @ np.asarray(diffusion(np.float32(t)))) for t, w in zip(*legendre(24), strict=True))

    @jax.jit
    def ends_cost():
        z0 = continuous_bound.noised(x0, eps, ends[0])
        return continuous_bound.prior_cost(x0, ends[1]) + continuous_bound.reconstruction_cost(x0, z0, ends[0], 3)

    total += weights @ np.asarray(ends_cost())

    def log_q(gamma):
        """log p(z | x) up to its constant, of all states, at the nodes of every x."""
        z = expit(-gamma) ** 0.5 * np.repeat(states, len(pairs), 0) + expit(gamma) ** 0.5 * np.tile(pairs, (9, 1))
        square = ((z[:, None] - expit(-gamma) ** 0.5 * states) ** 2).sum(-1)
        return z, -0.5 * square / expit(gamma)

    z1, log_q1 = log_q(ends[1])
    log_marginal = logsumexp(log_q1 + np.log(p), 1) - np.log(expit(ends[1]))
    of_prior = weights @ (log_marginal + 0.5 * (z1**2).sum(1))
    _, log_q0 = log_q(ends[0])
    posterior, decoder = softmax(log_q0 + np.log(p), 1), softmax(log_q0, 1)
    of_decoder = weights @ (posterior * np.log(posterior / decoder)).sum(1)
    entropy = -(p * np.log(p)).sum()
    assert of_prior > 0.002 and of_decoder > 0.05
    np.testing.assert_allclose(total, entropy + of_prior + of_decoder, rtol=2e-3)


def test_it_keeps_the_type_of_the_data():
    def everything(x):
        half = jnp.full(1, 0.5)
        return (
            continuous_bound.diffusion_cost(lambda z, gamma: 0 * z, x, x, half, half),
            continuous_bound.prior_cost(x, 5.0),
            continuous_bound.reconstruction_cost(x, x, -7.0, 5),
        )

    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for dtype in ("float32", "bfloat16", "float16"):
            out = jax.eval_shape(everything, jax.ShapeDtypeStruct((1, 2), dtype))
            assert {leaf.dtype.name for leaf in out} == {"float32"}
        assert np.isfinite(jax.jit(everything)(np.float16([[0.5, -1.0]]))).all()
