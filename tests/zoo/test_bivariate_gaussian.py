"""Chains on a bivariate Gaussian: the closed form against whole chains, and training against the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, stats

from configs import mcvi_bivariate_gaussian
from diffjax import zoo
from diffjax.data import toys
from diffjax.errors import InputError
from diffjax.evaluation.table import Table
from diffjax.zoo.markov import over_relaxation

SIGMAS = (1.0, 10.0)
P = over_relaxation.target(SIGMAS)
COV = np.array([[101.0, 99.0], [99.0, 101.0]]) / 4  # of z, from Var(z_1 - z_2) = 1 and Var(z_1 + z_2) = 100


def small(**chain):
    config = mcvi_bivariate_gaussian.get_config()
    config.chain.update(num_steps=(1, 3), **chain)
    return config


def whole_chain(a, num_steps):
    """All z_0 .. z_T as one Gaussian, with conditionals of p from its covariance: F (2T+2, T+2), z = F noise."""
    precision = np.linalg.inv(COV)
    factor = [np.eye(2, 2 + num_steps) / np.sqrt(precision[0, 0])]
    for t in range(num_steps):
        i, j = t % 2, 1 - t % 2
        new = factor[-1].copy()
        new[i] = a * factor[-1][i] - (1 - a) * precision[i, j] / precision[i, i] * factor[-1][j]
        new[i, 2 + t] = np.sqrt((1 - a**2) / precision[i, i])
        factor.append(new)
    return np.concatenate(factor)


def last_cov(a, num_steps):
    factor = whole_chain(a, num_steps)[-2:]
    return factor @ factor.T


def kl(cov):
    ratio = np.linalg.solve(COV, cov)
    return 0.5 * (np.trace(ratio) - 2 - np.log(np.linalg.det(ratio)))


def test_the_target_is_the_normalised_density_of_the_paper():
    z = np.random.default_rng(0).normal(size=(50, 2)) * 4
    np.testing.assert_allclose(P.log_prob(z), stats.multivariate_normal(cov=COV).logpdf(z), rtol=1e-9)
    energy = (z[:, 0] - z[:, 1]) ** 2 / 2 + (z[:, 0] + z[:, 1]) ** 2 / 200
    np.testing.assert_allclose(np.ptp(P.log_prob(z) + energy), 0.0, atol=1e-9)
    draws = toys.correlated(np.random.default_rng(1), 100_000, SIGMAS)
    np.testing.assert_allclose(np.cov(draws.T), COV, rtol=0.03)


@pytest.mark.parametrize("a", [0.0, -0.76, 0.4])
def test_the_closed_form_is_the_whole_chain_s_gaussian(a):
    num_steps = 5
    found = over_relaxation.exact(P, a, num_steps)
    factor = whole_chain(a, num_steps)
    for t in range(num_steps + 1):
        block = factor[2 * t : 2 * t + 2]
        np.testing.assert_allclose(found.kl[t], kl(block @ block.T), rtol=1e-8)
    assert (np.diff(found.kl) < 0).all()  # transitions that keep p never lead away from it
    # The inverse models as the chain's code reads them, against conditioning on all that comes later.
    noise = np.random.default_rng(0).normal(size=(factor.shape[1], 20))
    z = factor @ noise
    for t in range(num_steps):
        i, j = t % 2, 1 - t % 2
        row, later = factor[2 * t + i], factor[2 * t + 2 :]
        weights = np.linalg.lstsq(later @ later.T, later @ row, rcond=1e-10)[0]
        model = jax.tree.map(lambda leaf, t=t: np.asarray(leaf[t], np.float64), found.inverses)
        variance = row @ row - weights @ later @ row
        np.testing.assert_allclose(P.variance * np.exp(model.log_variance), variance, rtol=1e-5)
        after, tau = z[2 * t + 2 : 2 * t + 4], P.variance**0.5
        centre = P.slope * after[j]
        mean = centre + model.weight[0] * (after[i] - centre) + tau * model.weight[1] * after[j] / P.scale
        np.testing.assert_allclose(mean, weights @ z[2 * t + 2 :], atol=1e-4)


@pytest.mark.slow
def test_the_bound_of_perfect_inverse_models_is_minus_the_kl_draw_by_draw():
    """And a shorter chain in a longer array is the shorter chain."""
    found = over_relaxation.exact(P, -0.6, 4)
    inverses = jax.tree.map(lambda leaf: jnp.concatenate([jnp.zeros((3, *leaf.shape[1:])), leaf]), found.inverses)
    active = jnp.arange(7) >= 3
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(jax.vmap(lambda key: over_relaxation.chain(P, jnp.array(-0.6), inverses, active, key)))
    z, log_w = (np.asarray(part, np.float64) for part in draw(keys))
    swapped = last_cov(-0.6, 4)[::-1, ::-1]  # the first of the four steps, the fourth of seven, moves z_2
    law = stats.multivariate_normal(cov=swapped)
    np.testing.assert_allclose(log_w, stats.multivariate_normal(cov=COV).logpdf(z) - law.logpdf(z), atol=2e-3)
    assert abs(log_w.mean() + kl(swapped)) < 5 * log_w.std() / len(log_w) ** 0.5
    assert abs(found.kl[-1] - kl(swapped)) < 1e-9
    assert abs(np.exp(log_w).mean() - 1) < 5 * np.exp(log_w).std() / len(log_w) ** 0.5


def test_the_best_a_is_where_a_line_search_finds_it():
    for num_steps in (1, 4, 8):
        line = optimize.minimize_scalar(
            lambda a, n=num_steps: kl(last_cov(a, n)), bounds=(-0.99, 0.99), method="bounded"
        )
        a, least = over_relaxation.best(P, num_steps)
        np.testing.assert_allclose(a[-1], line.x, atol=0.004)
        np.testing.assert_allclose(least[-1], line.fun, atol=1e-4)


@pytest.fixture(scope="module")
def trained():
    config = small()
    config.evaluation.batch_size = 20_000
    model = zoo.make(config)

    @jax.jit
    def train(params):
        tx = optax.adam(optax.cosine_decay_schedule(0.03, 1500))
        batch = jnp.zeros((128, 2))

        def step(carry, key):
            params, state = carry
            keys = jax.random.split(key, len(batch))
            updates, state = tx.update(jax.grad(lambda p: model.loss(p, keys, batch).mean())(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(0), 1500)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    params = train(model.init(jax.random.key(0)))
    return model, params, model.measure(Table).table(params, jax.random.key(1), np.zeros((10, 2)))


@pytest.mark.slow
def test_learned_inverse_models_reach_the_closed_form(trained):
    _, _, table = trained
    assert len(table) == 6
    for name, row in table.items():
        num_steps = int(name.split(",")[0].removeprefix("T = "))
        np.testing.assert_allclose(row["exact"], -kl(last_cov(row["a"], num_steps)), atol=1e-6)
        assert -5 * row["its error"] < row["below exact"] < 0.01, name
        assert row["its error"] < 0.002
        assert abs(row["learned"] - row["exact"]) < 0.01 + 5 * row["standard error"], name


def test_the_learned_a_is_the_best_a(trained):
    _, _, table = trained
    row = table["T = 3, learned a"]
    line = optimize.minimize_scalar(lambda a: kl(last_cov(a, 3)), bounds=(-0.99, 0.99), method="bounded")
    assert abs(row["a"] - line.x) < 0.03
    assert row["exact"] > -line.fun - 0.002
    assert row["exact"] > table["T = 3, Gibbs"]["exact"] + 0.2
    assert abs(table["T = 1, learned a"]["a"]) < 0.05  # one step forgets best by drawing anew
    assert table["T = 1, Gibbs"]["a"] == 0 and table["T = 1, a = -0.76"]["a"] == pytest.approx(-0.76)


@pytest.mark.slow
def test_bound_weights_and_samples_are_the_longest_chain_s(trained):
    model, params, table = trained
    row = table["T = 3, learned a"]
    log_w = np.asarray(jax.jit(model.bound)(params, jax.random.key(5), np.zeros((20_000, 2))), np.float64)
    error = np.hypot(log_w.std() / len(log_w) ** 0.5, row["standard error"])
    assert abs(log_w.mean() - row["learned"]) < 5 * error
    samples = np.asarray(model.sample(params, jax.random.key(6), 20_000))
    want = last_cov(row["a"], 3)
    np.testing.assert_allclose(np.cov(samples.T), want, atol=5 * want.max() * (2 / len(samples)) ** 0.5)


def test_figures_show_the_exact_curves_and_the_learned_dashes(trained):
    model, params, table = trained
    data = toys.correlated(np.random.default_rng(0), 50, SIGMAS)
    figures = model.figures.own(params, jax.random.key(1), {"image": data})
    lines = figures["bound"].lines
    for way in ("Gibbs", "a = -0.76"):
        steps, curve = lines[f"exact, {way}"]
        a = 0.0 if way == "Gibbs" else -0.76
        np.testing.assert_allclose(curve, [-kl(last_cov(a, n)) for n in steps], rtol=1e-6)
        x, y = lines[f"learned r, {way}"]
        at, heights = np.nanmean(np.reshape(x, (-1, 3)), 1), np.nanmean(np.reshape(y, (-1, 3)), 1)
        np.testing.assert_allclose(at, [1, 3])
        np.testing.assert_allclose(heights, [table[f"T = {n}, {way}"]["learned"] for n in (1, 3)], rtol=1e-6)
    panels = figures["draws"].rows[0]
    assert [panel.xy.shape for panel in panels] == [(50, 2)] * 4
    np.testing.assert_array_equal(panels[0].xy, data)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("data", dict(levels=256), "data.levels=0"),
        ("data", dict(sigmas=(1.0, 0.0)), "data.sigmas"),
        ("chain", dict(num_steps=(3, 1)), "chain.num_steps"),
        ("chain", dict(num_steps=()), "chain.num_steps"),
        ("chain", dict(num_steps=(0, 1)), "chain.num_steps"),
        ("chain", dict(over_relaxation=-1.0), "chain.over_relaxation"),
        ("chain", dict(estimator="score"), "chain.estimator"),
    ],
)
def test_what_cannot_be_is_refused(section, change, message):
    config = small()
    config[section].update(change)
    with pytest.raises(InputError, match=message):
        zoo.make(config)
