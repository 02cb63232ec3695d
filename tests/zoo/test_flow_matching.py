"""The flow-matching system: at initialisation its velocity is 0, its flow the identity, and its bound a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import fm_digits, fm_toy
from diffjax import predictions, schedules, zoo
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound


def small(**fields):
    config = fm_digits.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 17, (64, 8, 8, 1)).astype(np.uint8)


def test_the_bound_of_the_zero_velocity_is_that_of_the_prior(images):
    """log N(x; 0, I) of dequantised levels, E over the uniform noise in closed form: E u² = 1/12 of a level's width."""
    model = zoo.make(small())
    params = jax.jit(model.init)(jax.random.key(0))
    found = jax.jit(model.measure(Bound).terms)(params, jax.random.key(1), images)
    x = (np.float64(images) / 8 - 1).reshape(64, 64)
    flow = 0.5 * (x**2 + (1 / 8) ** 2 / 12 + np.log(2 * np.pi)).sum(1)
    difference = np.float64(found["flow"]) - flow
    assert abs(difference.mean()) < 5 * difference.std() / 8 + 1e-3
    np.testing.assert_allclose(found["units"], 64 * np.log(8.0), rtol=1e-6)  # levels are 1/8 apart
    # The loss at a time is E|eps - x_0|², of which 1 is the noise's part.
    loss = jax.jit(model.loss)(params, jax.random.key(2), {"image": images, "t": np.full(64, 0.3, np.float32)})
    difference = np.float64(loss) - (1 + (x**2 + (1 / 8) ** 2 / 12).mean(1))
    assert abs(difference.mean()) < 5 * difference.std() / 8


def test_the_network_is_the_velocity_on_every_schedule():
    for name in ("straight", "vp"):
        config = fm_toy.get_config()
        config.net.features = (8,)
        config.matching.schedule = name
        model = zoo.make(config)
        params = jax.tree.map(lambda a: a + 0.1, model.init(jax.random.key(0)))
        process, predict = model.kernels(params)
        assert isinstance(process.schedule, type(schedules.CONTINUOUS[name]()))
        x, t = jnp.array([[0.3, -0.7], [1.0, 0.2]]), jnp.array([0.4, 0.9])
        prediction = predict(x, t)
        assert prediction.kind == "velocity"
        # On the straight path x_0 = x_t - t u.
        if name == "straight":
            x0 = predictions.convert(prediction, "x0", process, x, t)
            np.testing.assert_allclose(x - t[:, None] * prediction.value, x0, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_classes_and_guidance(images):
    config = small(**{"net.num_classes": 3, "matching.label_dropout": 0.2, "sampling.steps": 3})
    config.guidance = {
        "scale": 2.0,
        "label": 1,
        "interval": (0.0, 1.0),
        "rescale": 0.0,
        "parallel": 1.0,
        "threshold": 0.0,
    }
    model = zoo.make(config)
    params = jax.tree.map(lambda a: a + 0.05, model.init(jax.random.key(0)))
    process, guided = model.kernels(params)
    x, t = jnp.asarray(images[:2], float) / 8 - 1, jnp.full(2, 0.5)
    config.guidance.scale = 1.0
    one = zoo.make(config).kernels(params)[1](x, t).value
    config.guidance.scale = 0.0
    none = zoo.make(config).kernels(params)[1](x, t)
    velocity = predictions.convert(none, "velocity", process, x, t)
    assert np.abs(one - velocity).max() > 1e-3
    got = predictions.convert(guided(x, t), "velocity", process, x, t)
    np.testing.assert_allclose(got, velocity + 2.0 * (one - velocity), rtol=1e-4, atol=1e-5)
    label = np.array([0, 2, -1], np.int32)
    loss = jax.jit(model.loss)(params, jax.random.key(0), {"image": images[:3], "label": label})
    assert np.isfinite(loss).all()


def test_what_cannot_be_is_said():
    for fields, message in (
        ({"matching.schedule": "linear"}, r"matching\.schedule must be one of vp, .*straight.*, not 'linear'"),
        ({"matching.time_sampling": "grid"}, r"matching\.time_sampling must be one of uniform.*not 'grid'"),
        ({"matching.label_dropout": 1.0}, r"matching\.label_dropout must be a probability below 1, not 1\.0"),
        ({"net.name": "mlp"}, r"net\.name must be 'unet' or 'dit' for data of shape \(8, 8, 1\): 'mlp'"),
        ({"sampling.sampler": "midpiont"}, r"sampling\.sampler must be one of .*midpoint"),
    ):
        with pytest.raises(InputError, match=message):
            zoo.make(small(**fields))
