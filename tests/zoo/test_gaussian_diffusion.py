"""Gaussian diffusion with learned rates: untrained it is its own prior, exactly, and the rest is checked from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from configs import sohl_dickstein_cifar10, sohl_dickstein_swiss_roll
from diffjax import bounds, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.zoo.diffusion import gaussian as gaussian_diffusion
from diffjax.zoo.diffusion.learned_chain import Chain


def roll(num_steps=40, **diffusion):
    config = sohl_dickstein_swiss_roll.get_config()
    config.net.update(units=8, num_knots=5)
    config.diffusion.update(num_steps=num_steps, **diffusion)
    config.sampling.steps = num_steps
    return config


def pictures(num_steps=1000):
    config = sohl_dickstein_cifar10.get_config()
    config.data.update(shape=(4, 4, 3))
    config.net.update(features=4, num_scales=2, dense_features=4, pixel_features=4)
    config.diffusion.num_steps = config.sampling.steps = num_steps
    return config


def init(model):
    return jax.jit(model.init)(jax.random.key(1))


def chain_of(config, monkeypatch):
    """The system's Chain, which it hands to `learned_chain`."""
    taken = []
    monkeypatch.setattr(gaussian_diffusion, "learned_chain", lambda chain, *rest: taken.append(chain))
    gaussian_diffusion.make(config)
    assert isinstance(taken[0], Chain)
    return taken[0]


@pytest.mark.slow
@pytest.mark.parametrize("config", [roll(), pictures()], ids=["RBF, T = 40", "MultiScale, T = 1000"])
def test_the_untrained_bound_of_unit_gaussian_data_is_the_null_s(config, monkeypatch):
    """K - L_null = 0. Every term is quadratic in x_0 and eps, so that two points a variable integrate it exactly."""
    chain = chain_of(config, monkeypatch)
    params = jax.jit(chain.init)(jax.random.key(1))
    process, predict = chain.kernels(params)
    times, shape = process.schedule.times, tuple(config.data.shape)
    x0, eps = (jnp.broadcast_to(jnp.array(a).reshape(4, *[1] * len(shape)), (4, *shape)) for a in
               ([1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]))  # fmt: skip

    def cost(s, t):
        q = process.marginal(x0, t)
        return bounds.step_cost(process, predict, x0, q.mean + jnp.sqrt(q.variance) * eps, s, t, "shifted")[0].mean()

    inner = jax.jit(lambda: jax.lax.map(lambda st: cost(*st), (times[1:-1], times[2:])))()
    q = process.marginal(x0, times[1])
    first = bounds.reconstruction_cost(
        process, predict, x0, q.mean + jnp.sqrt(q.variance) * eps, jnp.full(4, times[1]), "shifted"
    )[0].mean()
    last = process.marginal(x0, 1.0).kl(process.prior(x0.shape)).sum() / 4
    k = -(np.asarray(inner, np.float64).sum() + float(first) + float(last)) / np.log(2)
    null = np.prod(shape) * -2.047096  # E log2 N(x; 0, 1)
    assert abs(k - null) / np.prod(shape) < 1e-4


@pytest.mark.slow
def test_every_trajectory_of_the_untrained_chain_weighs_what_its_start_weighs():
    model = zoo.make(roll())
    x0 = 2 * jax.random.normal(jax.random.key(0), (100, 2))
    want = stats.norm.logpdf(np.asarray(x0, np.float64)).sum(1)
    np.testing.assert_allclose(model.measure(Bound).null(x0), want, rtol=1e-5)
    log_w = jax.jit(model.measure(ManySamples).log_weight)(init(model), jax.random.key(2), x0)
    np.testing.assert_allclose(log_w, want, atol=1e-3)


@pytest.mark.slow
def test_pixels_are_weighed_as_levels():
    """E w = P(level), the integral of the standardised density over the level's cell, here under the prior."""
    config = pictures(num_steps=20)
    config.data.update(shape=(2, 2, 1), mean=3.0, std=2.0, levels=8)  # cells wide enough to see the integral
    model = zoo.make(config)
    x = np.array([0, 2, 5, 7], np.uint8).reshape(1, 2, 2, 1)
    cells = [integrate.quad(stats.norm(3.0, 2.0).pdf, k - 0.5, k + 0.5)[0] for k in (0, 2, 5, 7)]
    w = np.exp(
        np.asarray(
            jax.jit(model.measure(ManySamples).log_weight)(init(model), jax.random.key(0), np.repeat(x, 20_000, 0)),
            float,
        )
    )
    assert abs(w.mean() - np.prod(cells)) < 5 * w.std() / len(w) ** 0.5
    mean_log = [integrate.quad(lambda u, k=k: stats.norm.logpdf(k + u, 3.0, 2.0), -0.5, 0.5)[0] for k in (0, 2, 5, 7)]
    np.testing.assert_allclose(model.measure(Bound).null(x), sum(mean_log), rtol=1e-6)
    # Floats in [-1, 1] are the same levels.
    np.testing.assert_allclose(model.measure(Bound).null(x / 3.5 - 1.0), sum(mean_log), rtol=1e-5)


def test_the_rates_begin_with_equal_ratios_of_signal_to_noise_and_the_first_stays():
    zero = gaussian_diffusion.learned_betas(jnp.zeros(6), 10, 1e-3)
    alpha_bar = np.cumprod(1 - np.asarray(zero, np.float64))
    log_snr = np.log(alpha_bar / (1 - alpha_bar))
    np.testing.assert_allclose(np.diff(log_snr), np.diff(log_snr).mean(), rtol=1e-3)
    np.testing.assert_allclose(log_snr[-1], -np.log(10), rtol=1e-4)
    moved = gaussian_diffusion.learned_betas(jnp.full(6, 0.7), 10, 1e-3)
    odds = (moved / (1 - moved)) / (zero / (1 - zero))
    np.testing.assert_allclose(odds[1:], np.exp(0.7), rtol=1e-5)
    np.testing.assert_allclose([zero[0], moved[0]], 1e-3, rtol=1e-6)


@pytest.mark.slow
def test_the_loss_falls_along_its_gradient_to_the_schedule():
    """Its directional derivative, the noise held fixed, against a central difference; for the network too."""
    model = zoo.make(roll(num_steps=10, first_beta=0.01))
    data = jax.random.normal(jax.random.key(0), (2000, 2)) * jnp.array([0.3, 0.8])
    params = init(model)
    params["network"] = jax.tree.map(lambda p: p + 0.1, params["network"])
    loss = jax.jit(lambda p: model.loss(p, jax.random.key(3), data).mean())
    gradient = jax.grad(loss)(params)
    for part in ("schedule", "network"):
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient[part])))
        assert norm > 1e-3

        direction = jax.tree.map(lambda g, norm=norm: g / norm, gradient[part])

        def moved(h, part=part, direction=direction):
            return params | {part: jax.tree.map(lambda p, d: p + h * d, params[part], direction)}

        slope = (loss(moved(1e-2)) - loss(moved(-1e-2))) / 2e-2
        np.testing.assert_allclose(slope, norm, rtol=0.02)


@pytest.mark.slow
def test_the_loss_is_the_bound_step_by_step():
    model = zoo.make(roll(num_steps=6, first_beta=0.01))
    params = jax.tree.map(lambda p: p + 0.05, init(model))
    x0 = jax.random.normal(jax.random.key(0), (20_000, 2)) * 0.5
    loss = np.asarray(jax.jit(model.loss)(params, jax.random.key(1), x0)) * 2 * np.log(2)
    bound = np.asarray(jax.jit(model.bound)(params, jax.random.key(2), x0))
    error = np.hypot(loss.std(), bound.std()) / len(x0) ** 0.5
    assert abs(loss.mean() + bound.mean()) < 5 * error


@pytest.mark.slow
def test_training_finds_the_entropy_of_a_gaussian():
    """N(0, diag): no kernel that the network can make loses more than the chain's discretisation."""
    import optax

    model = zoo.make(roll(num_steps=20, first_beta=2e-3))
    std = jnp.array([0.3, 1.4])

    @jax.jit
    def train(params):
        tx = optax.adam(2e-2)

        def step(carry, key):
            params, state = carry
            x = jax.random.normal(jax.random.fold_in(key, 1), (500, 2)) * std
            grad = jax.grad(lambda p: model.loss(p, key, x).mean())(params)
            updates, state = tx.update(grad, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), 500))[0][0]

    params = train(init(model))
    x = jax.random.normal(jax.random.key(5), (5000, 2)) * std
    exact = stats.norm.logpdf(np.asarray(x, np.float64), scale=np.asarray(std)).sum(1)
    gap = exact - np.asarray(jax.jit(model.bound)(params, jax.random.key(6), x))
    error = gap.std() / len(gap) ** 0.5
    untrained = exact - np.asarray(jax.jit(model.bound)(init(model), jax.random.key(6), x))
    assert -5 * error < gap.mean() < 0.15 < 0.5 < untrained.mean()
    samples = np.asarray(model.sample(params, jax.random.key(7), 4000))
    np.testing.assert_allclose(samples.std(0), std, rtol=0.1)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("diffusion", dict(first_beta=0.0), "diffusion.first_beta"),
        ("diffusion", dict(schedule_bumps=0), "diffusion.schedule_bumps"),
        ("diffusion", dict(num_steps=1), "diffusion.num_steps"),
        ("data", dict(levels=2), "binomial_diffusion"),
        ("net", dict(name="unet"), "net.name"),
        ("sampling", dict(sampler="eule"), "sampling.sampler"),
        ("sampling", dict(steps=3), "sampling.steps"),
    ],
)
def test_what_cannot_be_is_refused(section, change, message):
    config = roll()
    config[section].update(change)
    with pytest.raises(InputError, match=message):
        zoo.make(config)


def test_pixels_without_a_scale_are_refused():
    config = pictures()
    config.data.std = 0.0
    with pytest.raises(InputError, match=r"data\.std"):
        zoo.make(config)
