import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.state import init_state, learning_rate, optimizer, update_ema
from diffjax.training.step import make_step


class Quadratic:
    """loss_i = |params - x_i|^2 / 2, so the gradient of the mean is params - mean(x)."""

    @staticmethod
    def init(key):
        return {"a": jnp.array([0.5, -1.0]), "b": jnp.array(2.0)}

    @staticmethod
    def loss(params, key, batch):
        return 0.5 * (jnp.sum((params["a"] - batch["a"]) ** 2, axis=1) + (params["b"] - batch["b"]) ** 2)


@pytest.mark.parametrize("clip", [0.0, 0.7])
def test_three_steps_of_adam_with_clipping_warm_up_and_ema_by_hand(clip):
    config = TrainingConfig(learning_rate=0.1, warmup=2, grad_clip=clip, ema_decay=0.15)
    tx = optimizer(config)
    state = init_state(jax.random.key(0), Quadratic, tx)
    step = jax.jit(make_step(Quadratic, tx, config))
    rng = np.random.default_rng(0)

    params = np.array([0.5, -1.0, 2.0])
    ema, m, v = params.copy(), np.zeros(3), np.zeros(3)
    for n in range(3):
        x = rng.normal(size=(4, 3)).astype(np.float32)
        state, metrics = step(state, jax.random.key(1), {"a": x[:, :2], "b": x[:, 2]})

        loss = 0.5 * np.mean(np.sum((params - x) ** 2, axis=1))
        g = params - x.mean(axis=0)
        norm = np.sqrt(np.sum(g**2))
        if clip:
            assert norm > clip  # or the case tests nothing
            g = g * clip / norm
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        lr = 0.1 * [0.5, 1.0, 1.0][n]
        params = params - lr * (m / (1 - 0.9 ** (n + 1))) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
        decay = min(0.15, (1 + n) / (10 + n))
        ema = decay * ema + (1 - decay) * params

        for name, value in {"loss": loss, "grad_norm": norm, "learning_rate": lr}.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
        np.testing.assert_allclose(np.append(state.params["a"], state.params["b"]), params, rtol=1e-5)
        np.testing.assert_allclose(np.append(state.ema["a"], state.ema["b"]), ema, rtol=1e-5)
    assert state.step == 3


def test_ema_of_a_constant_is_the_constant_and_of_a_run_its_weighted_mean():
    config = TrainingConfig(ema_decay=0.99)
    run = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    ema = jax.lax.scan(
        lambda mean, item: (update_ema(config, item[0], mean, item[1]), None), jnp.array(5.0), (jnp.arange(1000), run)
    )[0]
    decays = np.minimum(0.99, (1 + np.arange(1000.0)) / (10 + np.arange(1000.0)))
    # The weight of run[i] is (1 - d_i) times all later decays; what the initial value keeps is below 1e-9.
    weights = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1)
    np.testing.assert_allclose(ema, weights @ run, rtol=1e-4)
    np.testing.assert_allclose(update_ema(config, 3, jnp.array(2.0), jnp.array(2.0)), 2.0, rtol=0)


def test_learning_rate_grows_linearly_from_the_first_step_and_then_stays():
    config = TrainingConfig(learning_rate=3e-4, warmup=4)
    rates = [float(learning_rate(config, n)) for n in range(6)]
    np.testing.assert_allclose(rates, 3e-4 * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_allclose(learning_rate(config._replace(warmup=0), 0), 3e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rat": 1}, "learning_rate"),
        ({"steps": -1}, "training.steps = -1"),
        ({"batch_size": 2.5}, "training.batch_size = 2.5"),
        ({"log_every": 0}, "training.log_every = 0"),
        ({"learning_rate": float("nan")}, "training.learning_rate = nan"),
        ({"grad_clip": -1.0}, "training.grad_clip = -1.0"),
        ({"ema_decay": 1.0}, "training.ema_decay = 1.0"),
        ({"flip": 1}, "training.flip = 1"),
        ({"parallel": "threads"}, "parallel = 'threads'"),
    ],
)
def test_a_bad_field_is_named(fields, said):
    with pytest.raises(InputError, match=said):
        training_config(fields)
