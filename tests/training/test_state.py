import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from tiny import System

from diffjax.errors import InputError
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.state import check_parts, init_state, learning_rate, optimizer, update_ema
from diffjax.training.step import make_step

# loss_i = |params - x_i|^2 / 2, so the gradient of the mean is params - mean(x).
Quadratic = System(
    init=lambda key: {"a": jnp.array([0.5, -1.0]), "b": jnp.array(2.0)},
    loss=lambda params, key, batch: (
        0.5 * jnp.sum((params["a"] - batch["a"]) ** 2, axis=1)
        + 0.5 * ((params["b"] - batch["b"]) ** 2).astype(params["a"].dtype)
    ),
)


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


def test_parts_have_their_own_adam_by_hand():
    """One with settings of its own, one with the run's and one that is frozen, which no other is clipped for."""
    parts = ConfigDict({"b": {"learning_rate": 0.05, "warmup": 0, "b1": 0.5, "b2": 0.9}, "c": {"learning_rate": 0}})
    config = training_config({"learning_rate": 0.1, "warmup": 2, "grad_clip": 0.7, "ema_decay": 0.15, "parts": parts})
    frozen = jnp.array([3.0, -4.0])
    model = System(
        lambda key: {**Quadratic.init(key), "c": frozen},
        lambda params, key, batch: Quadratic.loss(params, key, batch) + 50 * jnp.sum(params["c"] ** 2),
    )
    tx = optimizer(config)
    state = init_state(jax.random.key(0), model, tx)
    step = jax.jit(make_step(model, tx, config))
    rng = np.random.default_rng(0)

    params, m, v = np.array([0.5, -1.0, 2.0]), np.zeros(3), np.zeros(3)
    b1, b2 = np.array([0.9, 0.9, 0.5]), np.array([0.999, 0.999, 0.9])
    for n in range(3):
        x = rng.normal(size=(4, 3)).astype(np.float32)
        state, metrics = step(state, jax.random.key(1), {"a": x[:, :2], "b": x[:, 2]})
        g = params - x.mean(axis=0)
        norm = np.sqrt(np.sum(g**2))
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
        g = g * min(1, 0.7 / norm)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        rate = np.array([0.1 * min(1, (n + 1) / 2)] * 2 + [0.05])
        params = params - rate * (m / (1 - b1 ** (n + 1))) / (np.sqrt(v / (1 - b2 ** (n + 1))) + 1e-8)
        np.testing.assert_allclose(np.append(state.params["a"], state.params["b"]), params, rtol=1e-5)
    for tree in (state.params, state.ema):
        np.testing.assert_array_equal(tree["c"], frozen)
    assert not jax.tree.leaves(state.opt_state[1]["c"])  # it needs no moments


def test_without_parts_the_optimiser_s_state_is_what_it_always_was():
    state = optimizer(TrainingConfig()).init({"a": jnp.zeros(2)})
    assert jax.tree.structure(state) == jax.tree.structure(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(1e-3))).init({"a": jnp.zeros(2)})
    )


def test_a_part_that_is_not_there_is_refused_with_those_that_are():
    config = training_config({"parts": {"classifier": {"learning_rate": 1e-4}}})
    with pytest.raises(InputError, match=r"training.parts.classifier is no part of .*; its parts are a, b"):
        jax.eval_shape(lambda key: init_state(key, Quadratic, optimizer(config)), jax.random.key(0))
    with pytest.raises(InputError, match=r"training.parts.classifier is no part of .*; it has one part without a name"):
        check_parts(config, jnp.zeros(3))


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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_mean_of_narrow_parameters_moves_to_a_constant(dtype):
    """In closed form: what is left of the way to the target is the product of the decays. In 16 bits it would stay."""
    config = TrainingConfig(ema_decay=0.999)
    model = Quadratic._replace(init=lambda key: {"a": jnp.ones(2, dtype), "b": jnp.ones((), dtype)})
    state = init_state(jax.random.key(0), model, optimizer(config))
    target = jax.tree.map(lambda x: x * dtype(1 + 2**-7), state.params)  # the next number in bfloat16
    ema = jax.lax.fori_loop(0, 3000, lambda n, ema: update_ema(config, n, ema, target), state.ema)
    decays = np.minimum(0.999, (1 + np.arange(3000.0)) / (10 + np.arange(3000.0)))
    for x in jax.tree.leaves(ema):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(1 + 2**-7 - np.asarray(x, float), 2**-7 * np.prod(decays), atol=1e-6)


def test_narrow_parameters_take_adam_s_steps_in_32_bits():
    """Against Adam in float64; the gradients are exact in bfloat16, and their squares change a mean by less than 2^-8.

    With two parts of a batch, too, which are added up in 32 bits.
    """
    values = np.array([[1.0, -0.5, 2.0], [1.0078125, -0.5, 0.25]])

    model = System(
        init=lambda key: jnp.ones(3, jnp.bfloat16),
        loss=lambda params, key, batch: batch["x"].astype(jnp.bfloat16) @ params,
    )
    for accumulate in (1, 2):
        config = TrainingConfig(learning_rate=0.02, warmup=0, grad_clip=0.0, ema_decay=0.9, accumulate=accumulate)
        tx = optimizer(config)
        state = init_state(jax.random.key(0), model, tx)
        types = jax.tree.map(lambda x: x.dtype, state)
        step = jax.jit(make_step(model, tx, config))
        params, ema, m, v = (np.full(3, x) for x in (1.0, 1.0, 0.0, 0.0))
        for n in range(60):
            g = values[[n % 2, 1]].mean(0) if accumulate == 2 else values[n % 2]
            batch = {"x": values[[n % 2, 1]] if accumulate == 2 else values[[n % 2] * 2]}
            state, _ = step(state, jax.random.key(1), jax.tree.map(lambda x: x.astype(np.float32), batch))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            moved = 0.02 * (m / (1 - 0.9 ** (n + 1))) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
            params = np.asarray(jnp.asarray(params - moved, jnp.bfloat16), float)
            decay = min(0.9, (1 + n) / (10 + n))
            ema = decay * ema + (1 - decay) * params
        assert jax.tree.map(lambda x: x.dtype, state) == types
        adam = state.opt_state[1][0]
        for got, want in ((adam.mu, m), (adam.nu, v), (state.ema, ema)):
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, want, rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(state.params, float), params)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_parameters_keep_their_type_where_the_default_is_64_bits(promotion):
    config = TrainingConfig(accumulate=2, ema_widths=(0.1,))
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones((), jnp.bfloat16)}
        model = Quadratic._replace(init=lambda key: params)
        tx = optimizer(config)
        state = init_state(jax.random.key(0), model, tx, config.ema_widths)
        batch = {"a": jnp.zeros((4, 2), jnp.float32), "b": jnp.zeros(4, jnp.bfloat16)}
        new, _ = jax.eval_shape(make_step(model, tx, config), state, jax.random.key(1), batch)
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
    for tree in (new.params, new.ema, new.averages, new.opt_state):
        assert all(x.dtype != np.float64 for x in jax.tree.leaves(tree))
    assert [x.dtype for x in jax.tree.leaves((new.ema, new.averages))] == 4 * [np.float32]


def test_learning_rate_grows_linearly_from_the_first_step_and_then_stays():
    config = TrainingConfig(learning_rate=3e-4, warmup=4)
    rates = [float(learning_rate(config, n)) for n in range(6)]
    np.testing.assert_allclose(rates, 3e-4 * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_allclose(learning_rate(config._replace(warmup=0), 0), 3e-4, rtol=1e-6)


def test_learning_rate_decays_as_it_is_told_to():
    config = TrainingConfig(learning_rate=3e-4, warmup=4, steps=12, decay="cosine")
    steps = [0, 3, 4, 6, 8, 12, 99]
    rates = [float(learning_rate(config, n)) / 3e-4 for n in steps]
    np.testing.assert_allclose(rates, [0.25, 1, 1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0, 0], atol=1e-6)
    rates = [float(learning_rate(config._replace(decay="inverse_sqrt"), n)) / 3e-4 for n in steps]
    np.testing.assert_allclose(rates, [0.25, 1, *np.sqrt(4 / np.array([5, 7, 9, 13, 100]))], rtol=1e-6)


@pytest.mark.parametrize("parts", [{}, {"a": {"learning_rate": 0.1}}])
def test_weight_decay_is_beside_adam(parts):
    """The first step of Adam is one learning rate long; the decay adds learning_rate · weight_decay · params."""
    config = TrainingConfig(learning_rate=0.1, warmup=0, grad_clip=0.0, weight_decay=0.5, parts=parts)
    params, grads = {"a": jnp.array([2.0, -1.0])}, {"a": jnp.array([0.3, 4.0])}
    tx = optimizer(config)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.1 * (1 + 0.5 * 2), -0.1 * (1 - 0.5)], rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rat": 1}, "learning_rate"),
        ({"steps": -1}, "training.steps = -1"),
        ({"seed": -1}, "training.seed = -1 must be an integer of at least 0 and below 2\\^32"),
        ({"seed": 2**32}, "training.seed = 4294967296 must be"),
        ({"seed": True}, "training.seed = True must be"),
        ({"batch_size": 2.5}, "training.batch_size = 2.5"),
        ({"log_every": 0}, "training.log_every = 0"),
        ({"learning_rate": float("nan")}, "training.learning_rate = nan"),
        ({"decay": "linear"}, "training.decay must be one of constant, cosine, inverse_sqrt, not 'linear'"),
        ({"decay": "cosine", "steps": 5, "warmup": 5}, "training.steps = 5 must be above training.warmup = 5"),
        ({"weight_decay": -0.1}, "training.weight_decay = -0.1"),
        ({"grad_clip": -1.0}, "training.grad_clip = -1.0"),
        ({"ema_decay": 1.0}, "training.ema_decay = 1.0"),
        ({"ema_widths": 0.1}, "training.ema_widths = 0.1 must be a tuple"),
        (
            {"ema_widths": (0.1, 0.3)},
            r"training.ema_widths\[1\] = 0.3 must be .* at most 0.28867513, which is the mean",
        ),
        ({"ema_widths": (0.0,)}, r"training.ema_widths\[0\] = 0.0 must be a share of training"),
        ({"ema_widths": ("0.1",)}, r"training.ema_widths\[0\] = '0.1' must be a share of training"),
        ({"ema_widths": (0.1, 0.2, 0.1)}, r"training.ema_widths = \(0.1, 0.2, 0.1\) has a width twice"),
        ({"flip": 1}, "training.flip = 1"),
        ({"parallel": "threads"}, "parallel = 'threads'"),
        ({"parts": 3}, "training.parts = 3 must map"),
        ({"parts": {"a": 3}}, "training.parts = .*must map"),
        ({"parts": {"a": {"rate": 3}}}, "training.parts.a.rate is not a field .* are learning_rate, warmup, b1, b2"),
        ({"parts": {"a": {"learning_rate": -1.0}}}, "training.parts.a.learning_rate = -1.0 must be a finite"),
        ({"parts": {"a": {"warmup": 0.5}}}, "training.parts.a.warmup = 0.5 must be an integer"),
        ({"parts": {"a": {"b1": 1.0}}}, "training.parts.a.b1 = 1.0 must be at least 0 and below 1"),
    ],
)
def test_a_bad_field_is_named(fields, said):
    with pytest.raises(InputError, match=said):
        training_config(fields)
