"""Black-box inference of a Normal's mean and precision: closed forms against quadrature, and training against them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from configs import bbvi_normal_gamma
from diffjax import data, vi, zoo
from diffjax.errors import InputError
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.zoo.markov import black_box
from diffjax.zoo.markov.black_box import NormalGamma, Params

CONFIG = bbvi_normal_gamma.get_config()
X = np.array(CONFIG.data.example)
PRIOR = NormalGamma(*CONFIG.posterior.prior)


def joint(mean, precision):
    """log p(x, μ, τ) by scipy, on arrays that broadcast."""
    m0, strength, a, b = PRIOR
    std = precision**-0.5
    likelihood = sum(scipy.stats.norm.logpdf(x, mean, std) for x in X)
    prior = scipy.stats.norm.logpdf(mean, m0, std / strength**0.5) + scipy.stats.gamma.logpdf(precision, a, scale=1 / b)
    return likelihood + prior


def quadrature(num=600):
    """μ, τ and the area of their cells, wide enough for all of the posterior."""
    mean, precision = np.linspace(-4, 7, num), np.linspace(0, 6, 2 * num + 1)[1::2]
    return mean[:, None], precision, (mean[1] - mean[0]) * (precision[1] - precision[0])


def laws(params):
    m, log_std, log_a, log_b = (float(value) for value in params)
    return scipy.stats.norm(m, np.exp(log_std)), scipy.stats.gamma(np.exp(log_a), scale=np.exp(-log_b))


def test_evidence_and_posterior_are_those_of_a_quadrature():
    mean, precision, area = quadrature()
    log_p = joint(mean, precision)
    log_z = scipy.special.logsumexp(log_p) + np.log(area)
    with jax.enable_x64(True):
        exact = black_box.posterior(PRIOR, X)
        np.testing.assert_allclose(black_box.log_evidence(PRIOR, X), log_z, atol=1e-5)
        density = exact.log_prob({"mean": jnp.asarray(mean), "precision": jnp.asarray(precision)})
        z = {"mean": jnp.float64(0.8), "precision": jnp.float64(0.6)}
        np.testing.assert_allclose(black_box.log_joint(PRIOR, X, z), joint(0.8, 0.6), rtol=1e-12)
    seen = log_p > log_p.max() - 30
    np.testing.assert_allclose(np.asarray(density)[seen], (log_p - log_z)[seen], atol=1e-5)


def test_the_bound_is_the_expectation_that_it_stands_for():
    params = (1.1, -0.9, 1.8, 2.0)
    normal, gamma = laws(params)
    mean, precision, area = quadrature()
    log_q = normal.logpdf(mean) + gamma.logpdf(precision)
    expected = (np.exp(log_q) * (joint(mean, precision) - log_q)).sum() * area
    with jax.enable_x64(True):
        np.testing.assert_allclose(black_box.elbo(PRIOR, X, Params(*map(jnp.float64, params))), expected, atol=1e-5)


def test_coordinate_ascent_ends_at_the_greatest_bound():
    """Where a general optimiser ends too; there E τ is that of the posterior, as two lines of algebra have it."""
    with jax.enable_x64(True):

        @jax.jit
        def cost(params):
            return -black_box.elbo(PRIOR, X, Params(*params))

        found = scipy.optimize.minimize(cost, np.zeros(4), jac=jax.jit(jax.grad(cost)), tol=1e-9)
        best = black_box.coordinate_ascent(PRIOR, X)
        np.testing.assert_allclose(best, found.x, atol=1e-5)
        exact, (normal, gamma) = black_box.posterior(PRIOR, X), laws(best)
        np.testing.assert_allclose(gamma.mean(), exact.concentration / exact.rate, rtol=1e-12)
        bounds = [black_box.elbo(PRIOR, X, black_box.coordinate_ascent(PRIOR, X, n)) for n in (1, 2, 3, 4)]
        assert (np.diff(bounds) > 0).all()
        assert -found.fun < black_box.log_evidence(PRIOR, X) - 0.03
    np.testing.assert_allclose(normal.mean(), exact.location, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "steps"), [pytest.param("score", 1000, marks=pytest.mark.slow), ("reparameterized", 700)]
)
def test_black_box_inference_gets_to_coordinate_ascent(estimator, steps):
    """Within 0.01 nats, by the score function with its moving average as by reparameterisation."""
    prior, x = NormalGamma(*map(float, PRIOR)), jnp.asarray(X, jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    @jax.jit
    def train(key):
        target = functools.partial(black_box.log_joint, prior, x)
        start = Params(*jnp.zeros((4, 1))[..., 0])
        return vi.mean_field.fit(key, target, black_box.family, start, optimizer, steps, 16, estimator)

    params, values = train(jax.random.key(0))
    limit = black_box.elbo(prior, x, black_box.coordinate_ascent(prior, x))
    assert 0 <= limit - black_box.elbo(prior, x, params) + 1e-5 < 0.01
    late = np.asarray(values[-100:], np.float64)
    assert abs(late.mean() - limit) < 5 * late.std() / 10 + 0.01


def small():
    config = bbvi_normal_gamma.get_config()
    config.data.update(num_train=16, num_test=16)
    config.evaluation.batch_size = 4000
    return config


@pytest.mark.slow
def test_the_system_s_loss_has_the_estimators_as_its_gradient():
    """One example given its key: each estimator's own gradient, with half of what the mean of two leaves."""
    config = small()
    config.posterior.estimators = ("score_leave_one_out", "sticking_the_landing")
    model = zoo.make(config)
    prior = NormalGamma(*map(float, PRIOR))
    params = {name: Params(*map(jnp.float32, (1.0, -0.5, 1.0, 1.2))) for name in config.posterior.estimators}
    keys = jax.random.split(jax.random.key(1), 1)
    batch = {"image": jnp.asarray(X, jnp.float32)[None]}
    target = functools.partial(black_box.log_joint, prior, batch["image"][0])

    @jax.jit
    def both(params):
        own = {
            name: vi.gradient(target, black_box.family, params[name], keys[0], 8, name, vi.sampled_entropy)
            for name in config.posterior.estimators
        }
        return jax.grad(lambda params: model.loss(params, keys, batch).sum())(params), own

    slope, own = both(params)
    for name in config.posterior.estimators:
        np.testing.assert_allclose(slope[name], -0.5 * np.stack(own[name]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # compiling many draws of Gamma
def test_the_table_and_the_pictures_know_the_closed_forms():
    """At the best q(μ) q(τ), where the gradients of draws vary as they should."""
    config = small()
    model = zoo.make(config)
    test = data.load(config.data, "test")
    batch = test.gather(np.arange(16))
    prior = NormalGamma(*map(float, PRIOR))
    best = black_box.coordinate_ascent(prior, jnp.asarray(X, jnp.float32))
    params = dict.fromkeys(config.posterior.estimators, best)
    table = model.measure(Table).table(params, jax.random.key(0), batch)
    log_z = table["exact"]["log evidence"]
    limit = table["coordinate ascent"]["bound"]
    variances = [table[name]["gradient variance"] for name in config.posterior.estimators]
    for name in config.posterior.estimators:
        assert table[name]["bound"] == limit
        np.testing.assert_allclose(table[name]["below log evidence"], log_z - limit, rtol=1e-6)
    assert variances[3] < variances[2] < 0.1 * variances[0], "what sticks varies least near the posterior, a score most"
    # The score's: of v/n times ∇ log q, v = -19.18 but for a little, whose own variance is Fisher's information.
    concentration = np.exp(np.float64(best.log_concentration))
    fisher = np.exp(-2 * np.float64(best.log_std)) + 2 + concentration  # of m, log s and log b
    fisher += concentration**2 * scipy.special.polygamma(1, concentration)  # of log a
    np.testing.assert_allclose(variances[0], limit**2 * fisher / 8, rtol=0.15)

    many = {"image": np.repeat(X[None].astype(np.float32), 4000, 0)}
    weights = np.asarray(jax.jit(model.measure(ManySamples).log_weight)(params, jax.random.key(1), many), np.float64)
    assert abs(weights.mean() - limit) < 5 * weights.std() / 4000**0.5
    ratio = np.exp(weights - log_z)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 4000**0.5
    normal, gamma = laws(best)
    draws = np.asarray(model.sample(params, jax.random.key(2), 2000))
    assert scipy.stats.kstest(draws[:, 0], normal.cdf).pvalue > 1e-6
    assert scipy.stats.kstest(draws[:, 1], gamma.cdf).pvalue > 1e-6

    rows = model.figures.own(params, jax.random.key(0), batch)["posterior"].rows
    for panel in [mark for row in rows for mark in row]:
        area = (panel.x[1] - panel.x[0]) * (panel.y[1] - panel.y[0])
        np.testing.assert_allclose(panel.density.sum() * area, 1, atol=0.01)
    assert np.abs(rows[0][0].density - rows[0][1].density).max() > 0.02, "the exact one is not factorised"


@pytest.mark.parametrize(
    ("field", "value"),
    [("prior", (0.0, 1.0, -1.0, 1.0)), ("prior", (0.0, 1.0)), ("estimators", ("exact",)), ("num_draws", 1)],
)
def test_a_posterior_that_cannot_be_is_named(field, value):
    config = bbvi_normal_gamma.get_config().to_dict()
    config["posterior"][field] = value
    with pytest.raises(InputError, match=f"posterior.{field}"):
        zoo.make(type(CONFIG)(config))


def test_numbers_that_are_none_are_refused():
    config = small()
    config.data.example = ()
    with pytest.raises(InputError, match=r"data\.example"):
        data.load(config.data, "train")
    config.data.shape = (2, 2)
    with pytest.raises(InputError, match=r"data\.shape"):
        zoo.make(config)
