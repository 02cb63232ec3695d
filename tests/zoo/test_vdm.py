"""The VDM system: at initialisation its U-Net is the constant 0, so ê = z and the bound has a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import expit, logsumexp

from configs import vdm_digits
from diffjax import learned_schedule, predictions, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.zoo.diffusion.vdm import vdm

ENDS = (-3.0, 2.0)


def small(**fields):
    config = vdm_digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.diffusion.update(ends=ENDS, units=8, clip=False)
    config.sampling.steps = 20
    config.evaluation.num_terms = 40
    config.update_from_flattened_dict(fields)
    return config


def bent(params):
    """Parameters as after training: a network that is not 0, a schedule that is not a line."""
    params = jax.tree.map(lambda x: x + 0.02, params)
    place = jnp.linspace(0.7, 0.9, params["interior"]["b"].size)
    return params | {"interior": params["interior"] | {"b": -10 * place, "log_w": 0 * place}}


class Linear(nn.Module):
    """(z, position, label, dropout keys) -> a linear function of z and the position."""

    @nn.compact
    def __call__(self, z, position, *rest):
        return nn.Dense(1)(z) + nn.Dense(1)(jnp.sin(position / 100.0)[:, None, None, None])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 17, (128, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def started():
    model = zoo.make(small())
    return model, jax.jit(model.init)(jax.random.key(0))


def test_the_bound_of_the_zero_network_is_its_closed_form(images, started):
    """eps - ê = (1 - sigma) eps - alpha x; the integral over gamma has no schedule in it."""
    model, params = started
    terms = jax.jit(model.measure(Bound).terms)(params, jax.random.key(1), images)
    x = (np.asarray(images, np.float64) / 8 - 1).reshape(128, 64)
    square = (x**2).sum(1)
    gamma = np.linspace(*ENDS, 10_001)
    alpha2, sigma = expit(-gamma), expit(gamma) ** 0.5
    noise, signal = np.trapezoid((1 - sigma) ** 2, gamma), np.trapezoid(alpha2, gamma)
    s2 = expit(ENDS[1])
    expected = {
        "diffusion": 0.5 * (64 * noise + signal * square),
        "prior": 0.5 * ((1 - s2) * square + 64 * (s2 - 1 - np.log(s2))),
    }
    # P(level | z_0): z_0/sigma_0 is x/√(noise to signal) + eps; integrate over eps.
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    levels = np.linspace(-1, 1, 17)
    apart = (levels[:, None] - levels) * np.exp(-0.5 * ENDS[0])  # from the true level to every level
    costs = logsumexp(-0.5 * (apart[..., None] + node) ** 2, axis=1) + 0.5 * node**2
    expected["reconstruction"] = (costs @ weight / weight.sum())[images.reshape(128, 64)].sum(1)
    assert set(terms) == set(expected)
    for name, value in terms.items():
        difference = np.asarray(value) - expected[name]
        error = difference.std(ddof=1) / np.sqrt(128)
        assert abs(difference.mean()) < 5 * error + 1e-4 * abs(expected[name].mean()), name
        assert error < 0.02 * expected[name].mean() + 1e-4, name


def test_each_part_of_the_parameters_descends_its_own(images, monkeypatch):
    """Gradients of the loss, against those of the plain mean and of the mean square by plain differentiation."""
    model = vdm(Linear(), (8, 8, 1), 17, ends=ENDS, units=8)
    params = bent(jax.jit(model.init)(jax.random.key(0)))
    batch = {"image": images[:8], "t": np.linspace(0.05, 0.95, 8, dtype=np.float32)}
    keys = jax.random.split(jax.random.key(2), 8)

    def gradients():
        return jax.jit(jax.value_and_grad(lambda p: model.loss(p, keys, batch).mean()))(params)

    value, found = gradients()
    monkeypatch.setattr(learned_schedule, "least_variance", lambda schedule, t, cost: cost(*schedule.rate(t)))
    plain, of_mean = gradients()
    monkeypatch.setattr(learned_schedule, "least_variance", lambda schedule, t, cost: cost(*schedule.rate(t)) ** 2)
    _, of_square = gradients()
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    expected = {"network": of_mean["network"], "ends": of_mean["ends"], "interior": of_square["interior"]}
    for name, tree in expected.items():
        size = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
        assert size > 1e-3
        jax.tree.map(lambda a, b, size=size: np.testing.assert_allclose(a, b, atol=1e-4 * size), found[name], tree)


@pytest.mark.slow
def test_the_loss_in_bits_is_the_bound_whatever_the_interior(images, started):
    """The network is a function of z and gamma: of one with parameters, too, two schedules have one bound."""
    model, params = started
    changed = bent(params)
    straight = changed | {"interior": params["interior"]}
    many = {"image": np.tile(images, (32, 1, 1, 1))}
    many["t"] = ((np.arange(4096) * 0.618034) % 1.0).astype(np.float32)
    bound = np.asarray(jax.jit(model.bound)(changed, jax.random.key(3), images))
    nats = [-bound]
    for p in (changed, straight):
        loss = np.asarray(jax.jit(model.loss)(p, jax.random.key(4), many)) * 64 * np.log(2)
        nats.append(loss.reshape(32, 128).mean(0))
    for a in nats[1:]:
        difference = a - nats[0]
        assert abs(difference.mean()) < 5 * difference.std(ddof=1) / np.sqrt(128)


@pytest.mark.slow
def test_the_flow_of_the_zero_network_is_gaussian(images, started):
    """ê = z is a score of -z/sigma: dz/dgamma = ½ z (sigma - sigma²), so that z_1 = scale z_0."""
    model, params = started
    flow = np.asarray(jax.jit(model.measure(Flow).log_prob)(params, jax.random.key(1), images))
    gamma = np.linspace(*ENDS, 10_001)
    log_scale = 0.5 * np.trapezoid(expit(gamma) ** 0.5 - expit(gamma), gamma)
    x = np.asarray(images, np.float64).reshape(128, 64) / 8 - 1
    s2 = expit(ENDS[0])
    rng = np.random.default_rng(1)
    expected = []
    for _ in range(20):
        eps = rng.standard_normal(x.shape)
        z = (1 - s2) ** 0.5 * x + s2**0.5 * eps
        levels = np.linspace(-1, 1, 17)
        log_q = -0.5 * (z[..., None] - (1 - s2) ** 0.5 * levels) ** 2 / s2
        decoder = -0.5 * eps**2 - logsumexp(log_q, -1)
        prior = -0.5 * (np.exp(log_scale) * z) ** 2 - 0.5 * np.log(2 * np.pi) + log_scale
        expected.append((prior + decoder + 0.5 * eps**2 + 0.5 * np.log(2 * np.pi * s2)).sum(1))
    difference = flow - np.mean(expected, 0)
    assert abs(difference.mean()) < 5 * difference.std(ddof=1) / np.sqrt(128)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun", "dpmpp_2m", "probability_flow"])
def test_samples_of_every_sampler_are_images(sampler):
    model = zoo.make(small(**{"sampling.sampler": sampler, "diffusion.clip": True}))
    params = bent(jax.jit(model.init)(jax.random.key(0)))
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(params, jax.random.key(1), 4))
    assert x.shape == (4, 8, 8, 1) and np.isfinite(x).all()
    assert abs(x).max() <= 1 + 1e-5


@pytest.mark.slow
def test_the_process_of_the_parameters_is_the_one_that_was_learned(started):
    model, params = started
    moved = bent(params) | {"ends": {"gamma_0": jnp.asarray(-4.0), "gamma_1": jnp.asarray(3.0)}}
    process, predict = model.kernels(moved)
    t = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(process.schedule.log_snr(t), [4.0, -3.0], rtol=1e-5)
    # The network is told gamma: at one gamma it says the same, whatever time the schedule gives it.
    other, predict_other = model.kernels(moved | {"interior": params["interior"]})
    grid = np.linspace(0, 1, 4001, dtype=np.float32)
    at_zero = [np.interp(0.0, p.schedule.gamma(grid), grid).astype(np.float32) for p in (process, other)]
    assert abs(at_zero[0] - at_zero[1]) > 0.1
    z = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 1)), jnp.float32)
    said = [
        predictions.convert(fn(z, jnp.full(1, t)), "eps", p, z, t)
        for fn, p, t in zip((predict, predict_other), (process, other), at_zero, strict=True)
    ]
    np.testing.assert_allclose(*said, atol=1e-3)


@pytest.mark.slow
def test_given_ends_stay():
    model = zoo.make(small(**{"diffusion.learn_ends": False}))
    params = jax.jit(model.init)(jax.random.key(0))
    assert set(params) == {"network", "interior"}
    np.testing.assert_allclose(model.kernels(params)[0].schedule.log_snr(jnp.array([0.0, 1.0])), [3.0, -2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.levels", 0, "data.levels=0"),
        ("diffusion.ends", (5.0, -13.3), "diffusion.ends"),
        ("diffusion.ends", (1.0,), "diffusion.ends"),
        ("diffusion.units", 0, "diffusion.units=0"),
        ("net.fourier", (2, 0), "net.fourier"),
        ("sampling.steps", 1, "sampling.steps=1"),
        ("sampling.sampler", "eule", "sampling.sampler"),
        ("evaluation.num_terms", 0, "evaluation.num_terms=0"),
    ],
)
def test_what_cannot_be_is_said(field, value, says):
    config = small()
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        zoo.make(config)
