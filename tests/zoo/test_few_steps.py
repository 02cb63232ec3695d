"""Systems that sample in few steps: what they remember, and their losses where the network is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import cm_digits, meanflow_digits, progressive_digits
from diffjax import losses, predictions, processes, randomness, samplers, schedules, zoo
from diffjax.errors import InputError
from diffjax.losses.consistency_times import Curriculum
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.diffusion.consistency import consistency, sampling_times
from diffjax.zoo.diffusion.denoiser import Denoiser
from diffjax.zoo.diffusion.mean_flow import mean_flow
from diffjax.zoo.diffusion.progressive import Rounds, progressive

KEY, SHAPE, EDM = jax.random.key(0), (2, 2, 1), schedules.edm(0.02, 10.0)
IMAGES = np.random.default_rng(0).integers(0, 17, (8, *SHAPE)).astype(np.uint8)
X0 = IMAGES / 8.0 - 1.0


class Linear(nn.Module):
    """(x, time, label, dropout keys, span) -> a x + b, and c times span if there is one."""

    @nn.compact
    def __call__(self, x, time, label=None, keys=None, span=None):
        a, b, c = (
            self.param(name, nn.initializers.constant(v), ()) for name, v in (("a", 0.3), ("b", 0.1), ("c", 0.02))
        )
        return a * x + b + (0.0 if span is None else c * span[:, None, None, None])


def of_digits(module, **fields):
    config = module.get_config()
    config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    return config


def states(model, steps, **fields):
    """The states of a training on IMAGES, the first before any step."""
    config = training_config({"batch_size": 8, "warmup": 0, "learning_rate": 0.1, "steps": steps, **fields})
    tx = optimizer(config)
    step, state = jax.jit(make_step(model, tx, config)), init_state(KEY, model, tx)
    found = [state]
    for _ in range(steps):
        state, metrics = step(state, KEY, {"image": IMAGES})
        assert np.isfinite(metrics["loss"])
        found.append(state)
    return found


@pytest.mark.slow
def test_a_consistency_model_remembers_its_step_its_teacher_and_a_mean():
    model = consistency(
        processes.gaussian(EDM), Linear(), SHAPE, 17, Curriculum(6, 2, 8), sigma_data=0.7, t_min=0.002, distil=True,
        target_decay=0.75,
    )  # fmt: skip
    assert model.memory.of_teacher
    seen = states(model, 4)
    mean = dict(seen[0].params)
    for i, state in enumerate(seen):
        assert state.memory["step"] == i
        mean = {name: 0.75 * mean[name] + 0.25 * state.params[name] for name in mean} if i else mean
        for name in mean:
            assert state.memory["teacher"][name] == seen[0].params[name]
            np.testing.assert_allclose(state.memory["target"][name], mean[name], rtol=1e-5)
    assert all(abs(seen[-1].params[name] - seen[0].params[name]) > 0.01 for name in "ab")
    # Drawn pairs are neighbours of a grid that is refined every 2 of 6 steps.
    for i, num in ((0, 2), (2, 4), (4, 8)):
        drawn = model.memory.draw(seen[i].memory, KEY, 64)
        grid = (0.02 ** (1 / 7) + np.arange(num + 1) / num * (10 ** (1 / 7) - 0.02 ** (1 / 7))) ** 7
        place = np.abs(10 * np.float64(drawn["t"])[:, None] - grid).argmin(1)
        np.testing.assert_allclose(10 * drawn["s"], grid[place - 1], rtol=1e-4)
        assert set(place) == set(range(1, num + 1))
        np.testing.assert_allclose(drawn["weight"], 1 / np.diff(grid)[place - 1], rtol=1e-3)


@pytest.mark.slow
def test_its_loss_is_that_of_the_library_with_what_the_memory_says():
    process = processes.gaussian(EDM)
    args = process, Linear(), SHAPE, 17, Curriculum(4, 2, 8)
    alone = consistency(*args, sigma_data=0.7, t_min=0.002)
    taught = consistency(*args, sigma_data=0.7, t_min=0.002, distil=True, order=1)
    params, teacher, mean = ({"a": a, "b": b, "c": 0.0} for a, b in ((0.2, 0.0), (-0.5, 0.3), (0.9, -0.1)))
    s, t = jnp.linspace(0.01, 0.5, 8), jnp.linspace(0.02, 0.9, 8)
    batch = {"image": IMAGES, "s": s, "t": t, "memory": {"teacher": teacher, "target": mean}}

    def predict(p):
        return predictions.preconditioned(lambda x, _: p["a"] * x + p["b"], EDM, 0.7)

    def f(p):
        return losses.consistency_function(process, predict(p), 0.002)

    x0, key = jnp.asarray(X0, jnp.float32), randomness.split(KEY, 3)[1]
    want = losses.consistency_training(process, f(params), key, x0, s, t, f(mean))
    np.testing.assert_allclose(alone.loss(params, KEY, batch), want, rtol=1e-4)
    want = losses.consistency_distillation(process, f(params), predict(teacher), key, x0, s, t, f(mean), 1)
    np.testing.assert_allclose(taught.loss(params, KEY, batch), want, rtol=1e-4)
    # One step of sampling is f at t = 1, in the range of images.
    x1 = 10.0 * jax.random.normal(jax.random.split(KEY)[0], (5, *SHAPE))
    want = np.clip(f(params)(x1, jnp.ones(5)).value, -1, 1)
    np.testing.assert_allclose(alone.sample(params, KEY, 5), want, rtol=1e-4, atol=1e-5)


def test_sampling_times_leave_out_the_level_at_which_f_says_nothing():
    sampling = dict(spacing="karras", rho=7.0)
    for steps in (1, 2, 4):
        config = cm_digits.get_config().sampling
        config.update(steps=steps, **sampling)
        ends = 10.0 ** (1 / 7), 0.02 ** (1 / 7)
        want = [(ends[0] + i / steps * (ends[1] - ends[0])) ** 7 / 10 for i in range(steps)] + [0.0]
        np.testing.assert_allclose(sampling_times(EDM, config), want, rtol=1e-4)
    config.spacing = "time"
    np.testing.assert_allclose(sampling_times(EDM, config), [1.0, 0.75, 0.5, 0.25, 0.0])


def test_mean_flow_trains_the_mean_velocity_and_gives_the_velocity():
    model = mean_flow(Linear(), SHAPE, 17, power=0.5)
    params = jax.jit(model.init)(KEY)
    r, t = jnp.array([0.0, 0.3, 0.5, 0.7] * 2), jnp.array([0.4, 0.3, 1.0, 0.8] * 2)
    found = model.loss(params, KEY, {"image": IMAGES, "r": r, "t": t})
    x0 = jnp.asarray(X0, jnp.float32)
    eps = np.float64(jax.random.normal(randomness.split(KEY, 3)[1], x0.shape))
    r, t = (np.float64(time)[:, None, None, None] for time in (r, t))
    xt, v = (1 - t) * X0 + t * eps, eps - X0
    u = 0.3 * xt + 0.1 + 0.2 * (t - r)
    error = ((u - v + (t - r) * (0.3 * v + 0.2)) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(found, error / (error + 1e-3) ** 0.5, rtol=1e-3)
    process, predict = model.kernels(params)
    said = predict(jnp.asarray(xt, jnp.float32), jnp.full(8, 0.6))
    assert said.kind == "velocity" and process.schedule == schedules.straight()
    np.testing.assert_allclose(said.value, 0.3 * xt + 0.1, rtol=1e-4, atol=1e-5)
    x1 = np.float64(jax.random.normal(jax.random.split(KEY)[0], (5, *SHAPE)))
    np.testing.assert_allclose(model.sample(params, KEY, 5), x1 - 0.3 * x1 - 0.1 - 0.2, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_mean_flow_draws_two_times_in_a_quarter_of_the_examples():
    num = 20_000
    drawn = {
        name: np.float64(value) for name, value in mean_flow(Linear(), SHAPE, 17).memory.draw((), KEY, num).items()
    }
    r, t = drawn["r"], drawn["t"]
    assert (r <= t).all() and t.max() < 1 and r.min() > 0
    assert abs((r < t).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / num)
    later = np.log(t / (1 - t))  # the larger of two N(-0.4, 1): mean -0.4 + 1/√π, variance 1 - 1/π
    assert abs(later.mean() - (-0.4 + np.pi**-0.5)) < 5 * np.sqrt((1 - 1 / np.pi) / num)


def test_rounds_of_progressive_distillation():
    rounds = Rounds(steps=12, first=8, last=2)
    np.testing.assert_array_equal(rounds.num_steps(np.arange(14)), [8] * 4 + [4] * 4 + [2] * 6)
    assert [int(k) for k in range(1, 20) if rounds.ends(k)] == [4, 8]
    u = jnp.array([0.0, 0.24, 0.26, 0.99999])
    times = rounds.times(u, 5)
    for name, want in {"s": [0, 0, 0.25, 0.75], "m": [0.125, 0.125, 0.375, 0.875], "t": [0.25, 0.25, 0.5, 1]}.items():
        np.testing.assert_allclose(times[name], want)


@pytest.mark.slow
def test_a_student_becomes_the_teacher():
    process = processes.gaussian(schedules.cosine(16))
    denoiser = Denoiser(process, Linear(), SHAPE, 17, "v", False, False, 0)
    model = progressive(zoo.Model(denoiser.init, lambda *_: 0.0), denoiser, Rounds(4, 4, 2))
    assert model.memory.of_teacher and model.bound is None and not model.measures
    seen = states(model, 4)
    for name in ("a", "b"):
        assert [float(state.memory["teacher"][name]) for state in seen[:2]] == [float(seen[0].params[name])] * 2
        assert [float(state.memory["teacher"][name]) for state in seen[2:]] == [float(seen[2].params[name])] * 3
        assert seen[2].params[name] != seen[0].params[name]
    for i, num in ((0, 4), (2, 2)):
        drawn = model.memory.draw(seen[i].memory, KEY, 32)
        np.testing.assert_allclose(np.unique(drawn["t"]), np.arange(1, num + 1) / num)
    # The loss is the library's, with the teacher of the memory.
    teacher, params = ({"a": a, "b": b, "c": 0.0} for a, b in ((0.2, 0.1), (-0.4, 0.3)))
    times = {name: jnp.full(8, value) for name, value in (("s", 0.25), ("m", 0.375), ("t", 0.5))}

    def says(p):
        return predictions.v(lambda x, _: p["a"] * x + p["b"])

    found = model.loss(params, KEY, {"image": IMAGES, "memory": {"teacher": teacher}, **times})
    key, x0 = randomness.split(KEY, 3)[1], jnp.asarray(X0, jnp.float32)
    want = losses.progressive(process, says(params), says(teacher), key, x0, *times.values())
    np.testing.assert_allclose(found, want, rtol=1e-4)


@pytest.mark.slow
def test_networks_of_the_configurations_know_both_times():
    model = zoo.make(of_digits(meanflow_digits))
    params = jax.tree.map(lambda x: x + 0.02, jax.jit(model.init)(KEY))
    assert {"span_dense0", "span_dense1"} <= set(params)
    x = {}
    for sampler, steps in (("mean_flow", 1), ("mean_flow", 3), ("heun", 3)):
        made = zoo.make(of_digits(meanflow_digits, **{"sampling.sampler": sampler, "sampling.steps": steps}))
        x[sampler, steps] = np.asarray(jax.jit(made.sample, static_argnums=2)(params, KEY, 2))
        assert np.isfinite(x[sampler, steps]).all()
    assert len({float(a.sum()) for a in x.values()}) == 3


@pytest.mark.parametrize(
    ("module", "field", "value", "says"),
    [
        (cm_digits, "consistency.intervals", (20, 10), "consistency.intervals=(20, 10)"),
        (cm_digits, "consistency.intervals", (0, 10), "consistency.intervals"),
        (cm_digits, "consistency.time_std", 0.0, "consistency.time_std=0"),
        (cm_digits, "sde.sigma_data", 0.0, "sde.sigma_data=0"),
        (cm_digits, "distillation.order", 3, "distillation.order=3"),
        (cm_digits, "distillation.target_decay", 1.0, "distillation.target_decay=1"),
        (cm_digits, "sampling.sampler", "eule", "sampling.sampler"),
        (cm_digits, "data.levels", 0, "consistency.clip=True"),
        (meanflow_digits, "matching.apart", 1.5, "matching.apart=1.5"),
        (meanflow_digits, "matching.time_std", 0.0, "matching.time_std=0"),
        (meanflow_digits, "matching.power", -1.0, "matching.power=-1"),
        (meanflow_digits, "sampling.steps", 0, "sampling.steps=0"),
        (meanflow_digits, "data.levels", 0, "data.levels=0"),
        (progressive_digits, "distillation.num_steps", (4, 8), "distillation.num_steps=(4, 8)"),
        (
            progressive_digits,
            "distillation.num_steps",
            (12, 1),
            "distillation.num_steps=(12, 1) must be apart by a power",
        ),
        (progressive_digits, "distillation.num_steps", (256, 1), "diffusion.num_steps=256"),
        (progressive_digits, "diffusion.prediction", "eps", "diffusion.prediction='eps'"),
        (progressive_digits, "diffusion.variance", "learned", "diffusion.variance='learned'"),
    ],
)
def test_what_cannot_be_is_said(module, field, value, says):
    with pytest.raises(InputError) as raised:
        zoo.make(of_digits(module, **{field: value}))
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_the_default_samplers_are_the_systems_own():
    for module, name in ((cm_digits, "consistency"), (progressive_digits, "ddim")):
        assert module.get_config().sampling.sampler == name in samplers.SAMPLERS
