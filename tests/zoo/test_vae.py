"""Variational auto-encoders against probabilistic PCA, quadrature and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from configs import vae_mnist
from diffjax import zoo
from diffjax.bounds import importance_weighted
from diffjax.errors import InputError
from diffjax.evaluation.many_samples import ManySamples

DIM, LATENT, SIGMA = 5, 2, 0.6


def configuration(shape, levels, likelihood, latents=(1,), features=((5,),), **vae):
    config = vae_mnist.get_config()
    config.data.update(shape=shape, levels=levels)
    config.net.update(likelihood=likelihood, latents=latents, features=features)
    config.vae.update(vae)
    return config


def randomized(model, scale=1.0):
    """Parameters with which z matters."""
    params = model.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + scale * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


# Probabilistic PCA: x = W z + μ + σ noise, whose posterior has precision M/σ², M = WᵀW + σ² I.


def pca_data():
    rng = np.random.default_rng(0)
    weights, mean = rng.normal(size=(DIM, LATENT)), rng.normal(size=DIM)
    z = rng.normal(size=(200, LATENT))
    return np.float32(z @ weights.T + mean + SIGMA * rng.normal(size=(200, DIM)))


def linear(**vae):
    return zoo.make(configuration((DIM,), 0, "isotropic_gaussian", (LATENT,), ((),), **vae))


def exact(params, x):
    """The mean log p(x) of the decoder, and its best mean-field gap ½ (Σ log M_ii - log|M|)."""
    dense = params["decoder"][0]["Dense_0"]
    weights, mean = np.asarray(dense["kernel"], float).T, np.asarray(dense["bias"], float)
    variance = float(jnp.exp(params["likelihood"]))
    log_p = stats.multivariate_normal(mean, weights @ weights.T + variance * np.eye(DIM)).logpdf(x).mean()
    precision = weights.T @ weights + variance * np.eye(LATENT)
    return log_p, 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])


@functools.cache
def trained(fixed, estimator):
    """Adam on batches of everything; with `fixed`, a decoder of correlated columns is not trained."""
    model, x = linear(num_samples=4, estimator=estimator), jnp.asarray(pca_data())
    params = model.init(jax.random.key(0))
    if fixed:
        weights = np.float32([[1.0, 0.8], [0.5, 0.9], [0.0, 0.3], [-0.7, -0.2], [0.4, 0.6]])
        params["decoder"] = [{"Dense_0": {"kernel": jnp.asarray(weights.T), "bias": x.mean(0)}}]
    train = {"encoder": params["encoder"]} if fixed else params
    tx = optax.adam(optax.cosine_decay_schedule(0.03, 1500))

    @jax.jit
    def run(train):
        def step(carry, key):
            train, state = carry
            gradient = jax.grad(lambda train: model.loss(params | train, key, x).mean())(train)
            updates, state = tx.update(gradient, state)
            return (optax.apply_updates(train, updates), state), None

        return jax.lax.scan(step, (train, tx.init(train)), jax.random.split(jax.random.key(1), 1500))[0][0]

    return params | run(train)


def mean_bound(model, params, x, draws=400):
    keys = jax.random.split(jax.random.key(2), draws)
    values = np.asarray(jax.jit(jax.vmap(lambda key: model.bound(params, key, x)))(keys), float).mean(1)
    return values.mean(), values.std() / draws**0.5


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [pytest.param("sticking_the_landing", marks=pytest.mark.slow), "analytic_kl"])
def test_a_linear_encoder_comes_to_the_exact_mean_field_gap(estimator):
    x = pca_data()
    params = trained(True, estimator)
    log_p, gap = exact(params, x)
    bound, error = mean_bound(linear(), params, x)
    assert gap > 0.15
    assert error < 2.5e-3  # a quarter of what is allowed
    assert abs(bound - (log_p - gap)) < 0.01


@pytest.mark.slow
def test_a_linear_auto_encoder_learns_probabilistic_pca():
    """The maximum of the likelihood by eigenvalues (Tipping & Bishop 1999); there the best W has no gap to pay."""
    x = pca_data()
    params = trained(False, "reparameterized")
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    rest = values[LATENT:].mean()
    logs = np.log(values[:LATENT]).sum() + (DIM - LATENT) * np.log(rest)
    best = -0.5 * (DIM * np.log(2 * np.pi) + logs + DIM)
    log_p, gap = exact(params, x)
    bound, error = mean_bound(linear(), params, x)
    assert abs(bound - (log_p - gap)) < 0.01
    assert best - 0.02 < bound < best + 5 * error
    assert abs(float(jnp.exp(params["likelihood"])) - rest) < 0.02 * rest


def test_with_the_exact_posterior_the_bound_is_the_likelihood():
    """Of 7 weights, all of which are p(x): any other number of them has the same mean."""
    x = pca_data()[:20]
    weights = np.float32([[1.0, 0.5], [0.5, -0.5], [0.0, 0.3], [-0.6, 0.2], [0.4, 0.0]])
    weights[:, 1] -= weights[:, 0] * (weights[:, 0] @ weights[:, 1]) / (weights[:, 0] @ weights[:, 0])
    model = linear(objective="iwae", num_samples=7)
    precision = (weights**2).sum(0) + SIGMA**2
    encoder = np.concatenate([weights / precision, np.zeros((DIM, LATENT))], 1)
    bias = np.concatenate([np.zeros(LATENT), np.log(SIGMA**2 / precision)])
    params = {
        "encoder": [{"Dense_0": {"kernel": jnp.float32(encoder), "bias": jnp.float32(bias)}}],
        "decoder": [{"Dense_0": {"kernel": jnp.asarray(weights.T), "bias": jnp.zeros(DIM)}}],
        "likelihood": jnp.float32(2 * np.log(SIGMA)),
        "flow": (),
    }
    covariance = weights @ weights.T + SIGMA**2 * np.eye(DIM)
    log_p = stats.multivariate_normal(np.zeros(DIM), covariance).logpdf(x)
    np.testing.assert_allclose(model.bound(params, jax.random.key(3), x), log_p, atol=5e-5)


# Bits, with one latent number in each layer, so that log p(x) is an integral over a grid.

BITS = (2, 3, 1)
GRID = np.linspace(-8.0, 8.0, 321)


def bits(num):
    return np.asarray(jax.random.bernoulli(jax.random.key(4), 0.4, (num, *BITS)), np.uint8)


def mlp(params, x):
    """A dense network of numpy, layer after layer."""
    for i in range(len(params)):
        x = x @ np.asarray(params[f"Dense_{i}"]["kernel"], float) + np.asarray(params[f"Dense_{i}"]["bias"], float)
        x = np.logaddexp(0, x) if i + 1 < len(params) else x
    return x


def log_evidence(params, x):
    """log p(x) by the trapezoid rule over the layers' latents, which is exact to rounding here."""
    step = np.log(GRID[1] - GRID[0])
    logits = mlp(params["decoder"][0], GRID[:, None])
    fit = x.reshape(len(x), -1) @ logits.T - np.logaddexp(0, logits).sum(1)
    log_prior = stats.norm.logpdf(GRID)
    for upper in params["decoder"][1:]:
        mean, log_variance = mlp(upper, GRID[:, None]).T
        log_joint = stats.norm.logpdf(GRID, mean[:, None], np.exp(0.5 * log_variance)[:, None]) + log_prior[:, None]
        log_prior = np.logaddexp.reduce(log_joint, 0) + step
    return np.logaddexp.reduce(fit + log_prior, 1) + step


@pytest.mark.slow
@pytest.mark.parametrize("latents", [pytest.param((1,), marks=pytest.mark.slow), (1, 1)])
def test_weights_have_the_likelihood_as_their_mean_and_bounds_rise_to_it(latents):
    features = ((5,), (4,))[: len(latents)]
    model = zoo.make(configuration(BITS, 2, "bernoulli", latents, features))
    params, x, num = randomized(model, 0.5), bits(3), 20_000
    log_p = log_evidence(params, x)
    draw = jax.jit(
        lambda keys: jax.vmap(lambda key: model.measure(ManySamples).log_weight(params, key, {"image": x}))(keys)
    )
    log_w = np.asarray(draw(jax.random.split(jax.random.key(5), num)), float)
    w = np.exp(log_w - log_p)
    assert (np.abs(w.mean(0) - 1) < 5 * w.std(0) / num**0.5).all()
    assert (w.std(0) < 8).all()
    bounds = [np.asarray(importance_weighted(log_w.reshape(-1, k, 3), axis=1)).mean(0) for k in (1, 5, 50)]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] < log_p).all()
    five = zoo.make(configuration(BITS, 2, "bernoulli", latents, features, objective="iwae", num_samples=5))
    bound = jax.jit(lambda keys: jax.vmap(lambda key: five.bound(params, key, {"image": x}))(keys))
    draws = bound(jax.random.split(jax.random.key(6), 4000))
    np.testing.assert_array_less(np.abs(draws.mean(0) - bounds[1]), 6 * np.asarray(draws.std(0)) / 4000**0.5)


@pytest.mark.slow
def test_every_estimator_has_the_same_mean():
    """Of the gradient of L_3 in all parameters, projected on a direction; they differ draw by draw."""
    make = functools.partial(configuration, BITS, 2, "bernoulli", objective="iwae", num_samples=3)
    names = ("reparameterized", "doubly_reparameterized")
    models = [zoo.make(make(estimator=name)) for name in names]
    params, x = randomized(models[0], 0.5), bits(4)
    _, slopes = jax.flatten_util.ravel_pytree(params)
    size = jax.flatten_util.ravel_pytree(params)[0].size
    direction = slopes(jax.random.normal(jax.random.key(7), (size,)))

    @jax.jit
    def draws(keys):
        def one(model, key):
            keys = jax.random.split(key, 4)
            return jax.jvp(lambda params: model.loss(params, keys, {"image": x}).mean(), (params,), (direction,))

        return [jax.vmap(functools.partial(one, model))(keys) for model in models]

    (value, plain), (same, double) = draws(jax.random.split(jax.random.key(8), 20_000))
    np.testing.assert_allclose(value, same, rtol=1e-4)
    difference = np.asarray(plain - double, float)
    assert difference.std() > 0.05
    assert abs(difference.mean()) < 5 * difference.std() / 20_000**0.5


@pytest.mark.slow
def test_training_gives_each_example_its_own_draw():
    model = zoo.make(configuration((2, 2, 1), 17, "gaussian", num_samples=2))
    params, x = randomized(model), np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    keys = jax.random.split(jax.random.key(9), 4)
    loss = jax.jit(lambda keys, x: model.loss(params, keys, {"image": x}))
    np.testing.assert_allclose(loss(keys, x)[2:3], loss(keys[2:3], x[2:3]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "isotropic_gaussian", "discretized_logistic"])
def test_models_of_every_likelihood_learn_and_draw(likelihood):
    """All parameters have gradients; samples are the mean picture over the prior."""
    levels = 2 if likelihood == "bernoulli" else 17
    config = configuration((5, 4, 1), levels, likelihood, (2,))
    model = zoo.make(config)
    params = randomized(model, 0.3)
    x = np.asarray(jax.random.randint(jax.random.key(10), (3, 5, 4, 1), 0, levels), np.uint8)
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, jax.random.key(1), {"image": x}).mean()))(params)
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))
    num = 1000

    @jax.jit
    def pictures(params):
        figures = model.figures.own(params, jax.random.key(2), {"image": x})
        images = [figures[name].images for name in ("reconstructions", "manifold")]
        return *images, model.sample(params, jax.random.key(3), num)

    reconstructions, manifold, samples = (np.asarray(images) for images in pictures(params))
    np.testing.assert_allclose(reconstructions[:3], 2.0 * x / (levels - 1) - 1.0, atol=1e-6)
    assert manifold.shape == (400, 5, 4, 1)
    # The manifold's points are the centres of equal shares of the prior, so its mean is that of samples, nearly.
    error = samples.std(0) / num**0.5
    assert (np.abs(samples.mean(0) - manifold.mean(0)) < 5 * error + 0.05 * samples.std(0) + 1e-6).all()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("data", {"levels": 256}, "a Bernoulli likelihood is of bits, not of data.levels=256: set data.levels=2 and"),
        ("vae", {"num_samples": 0}, "vae.num_samples must be an integer of at least 1, not 0"),
        ("vae", {"objective": "vi"}, "vae.objective must be one of elbo, iwae, not 'vi'"),
        ("vae", {"estimator": "score"}, "vae.estimator must be one of .* not 'score'"),
        ("vae", {"objective": "iwae", "estimator": "analytic_kl"}, "vae.estimator='analytic_kl' is for the 'elbo'"),
        ("vae", {"flow": "spline"}, "vae.flow must be one of none, planar, radial, iaf, not 'spline'"),
        ("vae", {"flow_length": 0}, "vae.flow_length must be an integer of at least 1, not 0"),
        ("vae", {"flow": "iaf", "estimator": "sticking_the_landing"}, "vae.flow='iaf' is for one layer and"),
        ("net", {"latents": ()}, "net.latents must be the sizes of the stochastic layers"),
        ("net", {"latents": (3, 2)}, "net.features the units between them, as many"),
        ("net", {"likelihood": "poisson"}, "net.likelihood must be one of bernoulli, .* not 'poisson'"),
        ("net", {"likelihood": "discretized_logistic", "name": "mlp"}, "net.name must be 'fc' or"),
    ],
)
def test_bad_configurations_are_named(section, values, message):
    config = vae_mnist.get_config()
    if values.get("likelihood") == "discretized_logistic":
        config.data.levels = 256
    config[section].update(values)
    with pytest.raises(InputError, match=message):
        zoo.make(config)


def test_greys_are_refused():
    model = zoo.make(configuration(BITS, 2, "bernoulli"))
    with pytest.raises(InputError, match="binarise"):
        model.bound(model.init(jax.random.key(0)), jax.random.key(1), {"image": 7 * bits(2)})


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["planar", pytest.param("radial", marks=pytest.mark.slow), "iaf"])
def test_flows_leave_the_weights_honest_and_move_the_posterior(flow):
    """E w = p(x), which a wrong log-determinant, or parameters of another example, would break."""
    model = zoo.make(configuration(BITS, 2, "bernoulli", flow=flow, flow_length=2, flow_units=4))
    params, x, num = randomized(model, 0.5), bits(3), 20_000
    log_p = log_evidence(params, x)
    draw = jax.jit(
        lambda keys: jax.vmap(lambda key: model.measure(ManySamples).log_weight(params, key, {"image": x}))(keys)
    )
    log_w = np.asarray(draw(jax.random.split(jax.random.key(5), num)), float)
    w = np.exp(log_w - log_p)
    assert (np.abs(w.mean(0) - 1) < 5 * w.std(0) / num**0.5).all()
    assert (w.std(0) < 8).all()
    plain = zoo.make(configuration(BITS, 2, "bernoulli"))
    same = jax.tree.map(jnp.copy, params) | {"flow": ()}
    same["encoder"][0]["Dense_1"] = jax.tree.map(lambda leaf: leaf[..., :2], same["encoder"][0]["Dense_1"])
    without = jax.jit(lambda key: plain.measure(ManySamples).log_weight(same, key, {"image": x}))(
        jax.random.split(jax.random.key(5), num)[0]
    )
    assert (np.abs(np.asarray(without) - log_w[0]) > 1e-3).all()
