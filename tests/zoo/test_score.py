"""The score system: its likelihood where it is known, its offsets, and the toy that noise levels are for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from configs import edm_digits, ncsn_toy, sde_digits
from diffjax import data, losses, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.evaluation.table import Table
from experiments import opened


def digits(**fields):
    """8x8 images, a network of one level, few steps."""
    config = sde_digits.get_config()
    config.net.update(channels=8, multipliers=(1,), attention=())
    config.sampling.steps = 10
    config.evaluation.bound_steps = 20
    config.update_from_flattened_dict(fields)
    return config


def levels(**fields):
    """Eight numbers of 17 levels, a network of a layer."""
    config = ncsn_toy.get_config()
    config.data.update(shape=(8,), levels=17)
    config.net.features = (8,)
    config.evaluation.bound_steps = 20
    config.sampling.sampler = "ancestral"
    config.update_from_flattened_dict(fields)
    return config


def toy(**fields):
    config = ncsn_toy.get_config()
    config.net.features = (8,)
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve"])
def test_likelihood_of_a_model_without_a_score_is_that_of_its_drift(name):
    # At the start the network is 0: the flow only shrinks x by alpha(1), and levels are 2/16 apart.
    config = levels(**{"sde.name": name})
    model = zoo.make(config)
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).integers(0, 17, (500, 8)).astype(np.uint8)
    value = np.asarray(jax.jit(model.measure(Flow).log_prob)(params, jax.random.key(1), {"image": x}))
    rate = {"vp": 10.05, "sub_vp": 10.05, "ve": 0.0}[name]
    std = {"vp": 1.0, "sub_vp": 1.0, "ve": config.sde.sigma_max}[name]
    alpha = math.exp(-0.5 * rate)
    # E over u of x² is that of the level plus 1/12 of the bin's width squared.
    square = ((2 * x / 16 - 1.0) ** 2 + (2 / 16) ** 2 / 12).sum(1)
    want = -0.5 * alpha**2 * square / std**2 + 8 * (math.log(alpha / std) - 0.5 * math.log(2 * math.pi))
    want += 8 * math.log(2 / 16)
    error = (value - want).std(ddof=1) / math.sqrt(500)
    assert abs((value - want).mean()) < 5 * error + 1e-3


@pytest.mark.slow
def test_bound_of_a_model_without_a_score_is_below_its_likelihood():
    model = zoo.make(levels(**{"sde.name": "vp"}))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).integers(0, 17, (50, 8)).astype(np.uint8)
    flow = np.asarray(jax.jit(model.measure(Flow).log_prob)(params, jax.random.key(1), {"image": x}))
    terms = jax.jit(model.measure(Bound).terms)(params, jax.random.key(2), {"image": x})
    np.testing.assert_allclose(terms["units"], 8 * math.log(8.0))
    bound = -sum(np.asarray(term) for term in terms.values())
    assert (bound < flow).all()


@pytest.mark.slow
def test_likelihood_weighting_is_by_the_squared_diffusion():
    """g²/sigma² times the simple loss of the same noise, β(t)/(1 - exp(-L)) of VP."""
    x, t = np.full((3, 8), 5, np.uint8), np.array([0.1, 0.5, 0.9])
    losses = []
    for weighting in ("simple", "likelihood"):
        model = zoo.make(levels(**{"sde.name": "vp", "sde.weighting": weighting}))
        params = model.init(jax.random.key(0))
        losses.append(np.asarray(model.loss(params, jax.random.key(1), {"image": x, "t": jnp.asarray(t)})))
    want = (0.1 + 19.9 * t) / -np.expm1(-(0.1 * t + 9.95 * t**2))
    np.testing.assert_allclose(losses[1] / losses[0], want, rtol=1e-4)


@pytest.mark.slow
def test_images_as_floats_and_as_levels_are_the_same_data():
    model = zoo.make(levels(**{"sde.name": "vp"}))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).integers(0, 17, (3, 8)).astype(np.uint8)
    bound = jax.jit(model.bound)
    whole, floats = (bound(params, jax.random.key(2), x) for x in (x, x / 8.0 - 1.0))
    np.testing.assert_allclose(whole, floats, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.trains
def test_toy_of_ncsn_is_learned_and_only_noise_levels_find_its_weights():
    """Trained as configs/ncsn_toy.py says, but for the length."""
    config = ncsn_toy.get_config()
    from diffjax.training.config import training_config
    from diffjax.training.state import init_state, optimizer
    from diffjax.training.step import make_step

    config.training.update(steps=2500, warmup=50)
    model, settings = zoo.make(config), training_config({**config.training, "parallel": "jit"})
    tx = optimizer(settings)
    state = init_state(jax.random.key(0), model, tx)
    step = make_step(model, tx, settings)
    data = jnp.asarray(opened.load(config, "train").gather(np.arange(100_000))["image"])

    @jax.jit
    def run(state):
        def body(state, i):
            rows = jax.random.randint(jax.random.fold_in(jax.random.key(1), i), (512,), 0, len(data))
            return step(state, jax.random.key(2), {"image": data[rows]})[0], None

        return jax.lax.scan(body, state, jnp.arange(config.training.steps))[0]

    params = run(state).ema
    batch = opened.load(config, "test").gather(np.arange(1000))
    table = model.measure(Table).table(params, jax.random.key(3), batch)
    for name, row in table.items():
        print(name, row)
    error = math.sqrt(0.2 * 0.8 / 4000)
    assert abs(table["annealed Langevin, learned score"]["weight"] - 0.2) < 0.05 + 5 * error
    assert abs(table["annealed Langevin, true score"]["weight"] - 0.2) < 0.02 + 5 * error
    assert table["plain Langevin, learned score"]["weight"] > 0.35
    assert table["plain Langevin, true score"]["weight"] > 0.35
    assert abs(table["exact draws"]["weight"] - 0.2) < 5 * error
    flow = table["log p by the flow"]
    assert -0.3 < flow["difference"] < 0.1
    # Scoring its samples by the other's density: the learned density is normalised, so its mean log cannot be above.
    assert flow["learned"] < flow["true"] + 5 * flow["standard error"]
    truth = scipy.stats.multivariate_normal([5, 5], 1.01).entropy()
    assert abs(flow["true"] + truth + scipy.stats.entropy([0.2, 0.8])) < 0.15


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sde.name", "vpp", "sde.name"),
        ("sde.weighting", "mle", "sde.weighting"),
        ("sde.levels", 10, "sde.levels=10.*'vp'"),
        ("net.name", "mlp", "net.name"),
        ("sampling.sampler", "eule", "sampling.sampler"),
        ("sampling.sampler", "annealed_langevin", "noise left"),
        ("sampling.predictor", "rk45", "sampling.predictor"),
        ("sampling.steps", 1, "sampling.steps"),
        ("sampling.snr", 0.0, "snr"),
        ("sde.weighting", "edm", "sde.weighting='edm' needs sde.sigma_data"),
        ("sde.name", "straight", "sde.name='straight' ends without signal.*set sde.sigma_data"),
        ("sde.sigma_data", -1.0, "sde.sigma_data must be the deviation"),
        ("sde.time_sampling", "normal", "sde.time_sampling must be one of uniform, log_normal"),
    ],
)
def test_bad_configuration(field, value, says):
    with pytest.raises(InputError, match=says):
        zoo.make(digits(**{field: value}))


def edm(**fields):
    """Eight numbers of 17 levels, preconditioned."""
    config = levels(**{"sde.name": "edm", "sde.sigma_min": 0.002, "sde.sigma_max": 80.0, "sde.levels": 0})
    config.sde.update(weighting="edm", sigma_data=0.75, time_sampling="log_normal", time_mean=-1.2, time_std=1.2)
    config.sampling.update(sampler="heun", steps=10, spacing="karras")
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.slow
def test_the_loss_of_a_preconditioned_network_that_says_nothing():
    """F = 0: E (x_0 - c_skip x_t)²/c_out² = ((1 - c_skip)² E x_0² + c_skip² σ²)/c_out²."""
    model, s = zoo.make(edm()), 0.75
    params = model.init(jax.random.key(0))
    n, loss = 4000, jax.jit(model.loss)
    x = np.random.default_rng(0).integers(0, 17, (n, 8)).astype(np.uint8)
    power = np.mean((x / 8 - 1.0) ** 2) + 1 / (12 * 64)
    for sigma in (0.3, 4.0):
        t = jnp.full(n, sigma / 80.0)
        got = np.float64(loss(params, jax.random.key(1), {"image": x, "t": t}))
        skip, out = s**2 / (sigma**2 + s**2), sigma * s / np.sqrt(sigma**2 + s**2)
        want = ((1 - skip) ** 2 * power + skip**2 * sigma**2) / out**2
        assert abs(got.mean() - want) < 5 * got.std() / np.sqrt(n)
    # Without times of the memory's it draws log-normal ones.
    t = model.memory.draw((), jax.random.key(2), n)["t"]
    level = np.log(80.0 * np.float64(t))
    assert abs(level.mean() + 1.2) < 0.02 and abs(level.std() - 1.2) < 0.02


def test_a_preconditioned_model_that_says_nothing_has_the_samples_of_its_gaussian():
    """F = 0 is the exact denoiser of N(0, s²): so are the samples, and the bound is that law's density less units."""
    model, n = zoo.make(edm(**{"sampling.steps": 40})), 4000
    params = model.init(jax.random.key(0))
    samples = np.float64(jax.jit(model.sample, static_argnums=2)(params, jax.random.key(1), n))
    assert abs(samples.std() / 0.75 - 1) < 0.01 + 5 / np.sqrt(2 * samples.size)
    x = np.random.default_rng(0).integers(0, 17, (500, 8)).astype(np.uint8)
    flow = np.float64(jax.jit(model.measure(Flow).log_prob)(params, jax.random.key(1), {"image": x}))
    power = np.mean((x / 8 - 1.0) ** 2, 1) + 1 / (12 * 64)
    want = -4 * np.log(2 * np.pi * 0.75**2) - 8 * power / (2 * 0.75**2) - 8 * math.log(8)
    error = (flow - want).std() / np.sqrt(len(x))  # of the dequantisation's draws
    assert abs((flow - want).mean()) < 5 * error + 0.02


def test_the_size_of_the_loss_is_learned_beside_the_network():
    """At first u = 0. Its slope is E (1 - loss) waves: 0 where the loss is 1 at every level, as of an exact one."""
    fields = {"sde.learned_uncertainty": True, "data.levels": 0}
    model, plain, n = zoo.make(edm(**fields)), zoo.make(edm(**{"data.levels": 0})), 4000
    params = model.init(jax.random.key(0))
    assert set(params) == {"network", "uncertainty"}
    level = np.exp(np.random.default_rng(1).normal(-1.2, 1.2, n))
    slope = jax.jit(jax.vmap(jax.grad(lambda p, k, b: model.loss(p, k, b)[0]), in_axes=(None, 0, 0)))
    keys = jax.random.split(jax.random.key(2), n)
    for scale, zero in ((0.75, True), (1.5, False)):
        x = scale * np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
        batch = {"image": x, "t": np.float32(level / 80.0)}
        np.testing.assert_allclose(
            model.loss(params, keys, batch), plain.loss(params["network"], keys, batch), rtol=1e-6
        )
        single = jax.tree.map(lambda a: a[:, None], batch)
        found = np.float64(slope(params, keys[:, None], single)["uncertainty"])
        off = np.abs(found.mean(0)) / (found.std(0) / np.sqrt(n))
        assert (off < 5).all() if zero else off.max() > 20
    # Where the loss is e^u at every level there is nothing left to learn of u.
    larger = 1.7 * np.ones(8)
    np.testing.assert_allclose(losses.learned_uncertainty(larger, np.log(larger)), 1 + np.log(larger), rtol=1e-6)


def test_the_configuration_has_the_deviation_of_the_digits():
    config = edm_digits.get_config()
    train = data.load(config.data, "train")
    pixels = train.gather(np.arange(len(train)))["image"] / 8.0 - 1.0
    assert abs(config.sde.sigma_data / pixels.std() - 1) < 0.01


def test_bad_levels():
    with pytest.raises(InputError, match="sigma_min=60"):
        zoo.make(toy(**{"sde.sigma_min": 60.0}))
    with pytest.raises(InputError, match=r"sde.levels=1"):
        zoo.make(toy(**{"sde.levels": 1}))
