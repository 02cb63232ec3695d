"""Flows from other sources than noise, with couplings, and reflow: of a constant velocity the losses are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from configs import fm_moons, fm_restore_digits, fm_toy, reflow_toy
from diffjax import zoo
from diffjax.distances import energy_distance
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.evaluation.table import Table
from diffjax.interpolants import couplings
from diffjax.training.config import training_config
from diffjax.training.sharding import parallelize
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.diffusion.sources import Source

KEY = jax.random.key(0)


def small(config, **fields):
    if config.net.get("name") == "mlp":
        config.net.features = (8,)
    else:
        config.net.update(channels=8, multipliers=(1,), num_blocks=1, attention=())
    config.update_from_flattened_dict(fields)
    return config


def constant(model, velocity):
    """Parameters whose velocity is the same everywhere: the last layer begins with a kernel of zeros."""
    params = jax.jit(model.init)(KEY)
    last = sorted(params, key=lambda name: int(name.partition("_")[2]))[-1]
    return params | {last: params[last] | {"bias": jnp.asarray(velocity, jnp.float32)}}


@pytest.mark.fast(1)
@pytest.mark.parametrize("coupling", ["optimal", "paired"])
def test_an_example_meets_the_source_that_the_coupling_gives_it(coupling):
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(2, 6, 2)).astype(np.float32)
    batch = {"image": x0, "source": x1, "label": np.zeros(6, np.int32), "t": np.full(6, 0.3, np.float32)}
    cost = ((np.float64(x0)[:, None] - x1) ** 2).mean(-1)
    best = min(itertools.permutations(range(6)), key=lambda p: sum(cost[i, j] for i, j in enumerate(p)))
    want = best if coupling == "optimal" else range(6)
    model = zoo.make(small(fm_moons.get_config(), **{"matching.coupling": coupling}))
    loss = jax.jit(model.loss)(constant(model, [0.0, 0.0]), KEY, batch)
    np.testing.assert_allclose(loss, [cost[i, j] for i, j in enumerate(want)], rtol=1e-5)
    assert model.bound is None and model.sample is None


def test_a_class_is_paired_with_sources_of_its_own():
    x0 = np.array([[0.0], [1.0], [5.0], [6.0]], np.float32)
    batch, label = {"source": np.array([[0.9], [5.9], [0.1], [5.1]], np.float32)}, np.array([0, 0, 1, 1])
    for by_class, want in ((False, [0.1, 0.9, 5.1, 5.9]), (True, [0.9, 5.9, 0.1, 5.1])):
        source = Source("data", couplings.optimal, by_class)
        np.testing.assert_allclose(source.paired(KEY, jnp.asarray(x0), batch, label)[:, 0], want, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("config", [fm_toy, fm_restore_digits])
def test_noisy_examples_are_the_source_of_themselves(config):
    tau, rng = 0.7, np.random.default_rng(0)
    changes = {"matching.source": "noisy", "matching.source_noise": tau, "matching.coupling": "paired"}
    model = zoo.make(small(config.get_config(), **{"sampling.steps": 2} | changes))
    images, levels = rng.integers(0, 17, (64, 8, 8, 1)).astype(np.uint8), config is fm_restore_digits
    examples = images if levels else images.reshape(-1, 2) / np.float32(8) - 1
    params = jax.jit(model.init)(KEY)
    batch = {"image": examples, "t": np.full(len(examples), 0.3, np.float32)}
    loss = np.asarray(jax.jit(model.loss)(params, KEY, batch))
    assert abs(loss.mean() - tau**2) < 5 * tau**2 * np.sqrt(2 / images.size)
    # A velocity of 0 leaves the noise where it is; what is drawn within a level is in it, too.
    end = np.asarray(jax.jit(model.measure(Reconstruction).reconstruct)(params, KEY, {"image": examples}))
    error = ((end.reshape(images.shape) - (images / 8.0 - 1)) ** 2).mean()
    want = tau**2 + levels * (1 / 8) ** 2 / 12
    assert abs(error - want) < 5 * want * np.sqrt(2 / images.size)
    if not levels:  # the pairs are no independent draws, of which alone there is an energy distance
        table = model.measure(Table).table(params, KEY, {"image": examples})
        assert list(table) == ["straightness"] and table["straightness"]["mean"] < 1e-6
    assert model.sample is None and model.bound is None


@pytest.mark.slow
def test_the_table_of_a_flow_that_shifts_all_points():
    model = zoo.make(small(fm_moons.get_config()))
    params, rng = constant(model, [2.0, 0.0]), np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(50, 2)).astype(np.float32),
        "source": rng.normal(size=(50, 2)).astype(np.float32),
    }
    table = model.measure(Table).table(params, KEY, batch)
    assert table["straightness"]["mean"] == pytest.approx(0.0, abs=1e-6)
    want = float(energy_distance(batch["source"] - np.array([2.0, 0.0]), batch["image"]))
    for name in ("flow", "Euler, 1 steps", "Euler, 10 steps"):
        assert table["energy distance"][name] == pytest.approx(want, abs=1e-4)
    figures = model.figures.own(params, KEY, batch)
    path = figures["flow_paths"].rows[0][0].xy
    np.testing.assert_allclose(path[:, -1], batch["source"] - [2.0, 0.0], atol=1e-4)
    film = np.asarray(figures["flow"].frames)
    bright = (film[[0, -1], 0, :, :, 0] + 1) * np.arange(64)
    shift = bright.sum((1, 2)) / (film[[0, -1]] + 1).sum((1, 2, 3, 4))
    assert shift[0] - shift[1] > 10  # pixels to the left


def test_the_ends_of_a_reflow_are_the_teachers():
    """Teacher 3 and -1 everywhere: x_0 = x_1 - (3, -1), so the velocity 0 of the student has the error (9 + 1)/2."""
    model = zoo.make(small(reflow_toy.get_config(), **{"distillation.num_steps": 2}))
    teacher, student = constant(model, [3.0, -1.0]), constant(model, [0.0, 0.0])
    memory = model.memory.init(teacher)
    batch = {"image": np.zeros((5, 2), np.float32), "memory": memory} | model.memory.draw(memory, KEY, 5)

    @jax.jit
    def value_and_slopes(memory):
        return jax.value_and_grad(lambda memory: model.loss(student, KEY, batch | {"memory": memory}).mean())(memory)

    value, slopes = value_and_slopes(memory)
    assert value == pytest.approx(5.0, rel=1e-5)
    assert all((np.asarray(slope) == 0).all() for slope in jax.tree.leaves(slopes["teacher"]))
    after = model.memory.update(memory, KEY, student, batch, jnp.zeros(5))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after["teacher"], teacher))
    assert model.memory.of_teacher and model.measure(Bound)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (fm_toy, {"matching.source": "moise"}, r"matching\.source must be one of noise, data, noisy, not 'moise'"),
        (fm_toy, {"matching.coupling": "best"}, r"matching\.coupling must be one of paired, independent, optimal"),
        (fm_toy, {"matching.source": "data"}, r"matching\.source='data' and data\.source, the other set, need each"),
        (fm_moons, {"matching.source": "noise"}, r"matching\.source='data' and data\.source, the other set, need each"),
        (fm_moons, {"matching.schedule": "vp"}, r"matching\.source='data' needs matching\.schedule='straight'"),
        (fm_moons, {"sampling.sampler": "ancestral"}, r"sampling\.sampler='ancestral'.*reads a score"),
        (fm_toy, {"matching.coupling": "optimal", "sampling.churn": 1.0}, r"sampling\.churn=1\.0 reads a score"),
        (
            fm_toy,
            {"matching.coupling": "sinkhorn", "matching.epsilon": 0.0},
            "epsilon=0.0 of sinkhorn must be positive",
        ),
        (fm_toy, {"matching.by_class": True}, r"matching\.by_class=True needs a network that knows classes"),
        (fm_restore_digits, {"matching.source_noise": 0.0}, r"matching\.source_noise=0\.0 .* must be positive"),
        (reflow_toy, {"matching.coupling": "optimal"}, r"matching\.coupling='optimal': the teacher makes the pairs"),
        (reflow_toy, {"sampling.sampler": "euler_maruyama"}, r"sampling\.sampler='euler_maruyama'.*reads a score"),
        (reflow_toy, {"distillation.num_steps": 0}, r"distillation\.num_steps"),
    ],
)
def test_what_cannot_be_is_said(config, fields, message):
    with pytest.raises(InputError, match=message):
        zoo.make(small(config.get_config(), **fields))


def test_a_batch_without_its_source_is_told():
    model = zoo.make(small(fm_moons.get_config()))
    with pytest.raises(InputError, match=r"needs batches with 'source': set data\.source"):
        model.loss(None, KEY, {"image": np.zeros((4, 2), np.float32)})


@pytest.mark.slow
def test_eight_devices_find_the_assignment_of_the_whole_batch():
    settings = training_config(dict(batch_size=16))
    model, tx = zoo.make(small(fm_moons.get_config())), optimizer(settings)
    step = make_step(model, tx, settings)
    x0, x1 = np.random.default_rng(0).normal(size=(2, 16, 2)).astype(np.float32)
    found = []
    for num in (1, 8):
        layout = parallelize(step, "jit", jax.devices()[:num], settings.mesh)
        state = layout.place_state(init_state(KEY, model, tx))
        found.append([])
        for _ in range(3):
            state, metrics = layout.run(state, KEY, layout.place_batch({"image": x0, "source": x1}))
            found[-1].append(float(metrics["loss"]))
    cost = ((np.float64(x0)[:, None] - x1) ** 2).mean(-1)
    rows, columns = linear_sum_assignment(cost)
    assert found[0][0] == pytest.approx(cost[rows, columns].mean(), rel=1e-5)  # the velocity is 0 at first
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert found[0][2] != found[0][0]


def trained(model, params, steps, draw):
    """The mean of the parameters after Adam's steps, begun with `params`, on batches draw(key, 256)."""
    config = training_config(
        {"learning_rate": 3e-3, "warmup": 50, "decay": "cosine", "steps": steps, "grad_clip": 1.0, "ema_decay": 0.99}
    )
    step, state = make_step(model, optimizer(config), config), init_state(KEY, model, optimizer(config))
    state = state._replace(params=params, ema=params, memory=model.memory.init(params))

    @jax.jit
    def run(state):
        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(lambda state, key: (step(state, key, draw(key, 256))[0], None), state, keys)[0]

    return run(state).ema


@pytest.mark.slow
@pytest.mark.trains
def test_reflow_straightens_the_flow_and_one_step_beats_ten():
    """Two Gaussians at (3, ±2) become two at (-3, ±2). Independent pairs cross, so that the flow first goes towards the
    middle. Where it takes a point is about 6 to the left."""
    fields = {"net.features": (64, 64), "matching.source": "data", "data.source": {"name": "mixture"}}
    teacher = zoo.make(small(fm_toy.get_config(), **fields))
    student = zoo.make(small(reflow_toy.get_config(), **fields | {"distillation.num_steps": 8}))

    def draw(key, num):
        keys = jax.random.split(key)
        names = {"image": -3.0, "source": 3.0}
        return {name: points(key, x, num) for key, (name, x) in zip(keys, names.items(), strict=True)}

    def points(key, x, num):
        up, noise = jax.random.split(key)
        centres = jnp.array([[x, -2.0], [x, 2.0]])[jax.random.randint(up, (num,), 0, 2)]
        return centres + 0.3 * jax.random.normal(noise, (num, 2))

    first = trained(teacher, teacher.init(KEY), 800, draw)
    second = trained(student, first, 400, draw)
    batch = draw(jax.random.key(2), 2000)
    before, after = (
        model.measure(Table).table(params, KEY, batch) for model, params in ((teacher, first), (student, second))
    )
    bent, straight = (table["straightness"] for table in (before, after))
    error = bent["standard error"] + straight["standard error"]
    assert straight["mean"] < 0.1 * bent["mean"] - 5 * error
    assert after["energy distance"]["Euler, 1 steps"] < 0.5 * before["energy distance"]["Euler, 10 steps"]
