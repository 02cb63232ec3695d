"""docs/design.md is true: each example does what the page says, and no room imports what its row does not name."""

import ast
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from diffjax import data, losses, predictions, processes, samplers, schedules, time_sampling, zoo
from diffjax.data import embedded
from diffjax.errors import InputError
from diffjax.evaluation import measure
from diffjax.evaluation.features import FEATURES
from diffjax.evaluation.quality import DISTANCES, Quality
from diffjax.mesh import make_mesh
from diffjax.training.config import training_config
from diffjax.training.state import init_state, optimizer
from diffjax.training.step import make_step
from diffjax.zoo.diffusion.ddpm import schedule_of
from diffjax.zoo.make import SYSTEMS
from experiments.writer import Writer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/design.md").read_text()
EXAMPLES = dict(re.findall(r"^\*\*(.+?)\*\*.*\n(?:.+\n)*?```python\n((?:.*\n)*?)```", PAGE, flags=re.MULTILINE))
REGISTRIES = (
    SYSTEMS,
    samplers.SAMPLERS,
    schedules.CHAINS,
    losses.LOSSES,
    time_sampling.TIME_SAMPLERS,
    embedded.EMBEDDED,
    DISTANCES,
    FEATURES,
)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """What the examples register is forgotten."""
    monkeypatch.setattr(measure, "MEASURES", list(measure.MEASURES))
    kept = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, old in zip(REGISTRIES, kept, strict=True):
        registry.clear()
        registry.update(old)


def run(name):
    """The names that an example defines."""
    namespace = {"__name__": "example"}
    exec(compile(EXAMPLES[name], f"docs/design.md, {name}", "exec"), namespace)
    return namespace


def trained(model, batches, rate=0.1):
    """The first state and that after each step, and the losses, of a training without warm-up and clipping."""
    config = training_config({"learning_rate": rate, "warmup": 0, "grad_clip": 0.0, "ema_decay": 0.0})
    step = jax.jit(make_step(model, optimizer(config), config))
    states, seen = [init_state(KEY, model, optimizer(config))], []
    for batch in batches:
        state, metrics = step(states[-1], KEY, {"image": batch})
        states.append(state)
        seen.append(float(metrics["loss"]))
    return states, seen


def measured(model, params, examples, **options):
    test_set = data.from_arrays("examples", examples, levels=0)
    options = {"batch_size": 3, "num_examples": 0} | options
    mesh = make_mesh(devices=jax.devices()[:1])
    return measure.evaluate(measure.Trained(model, "example", params, KEY, options, mesh, test_set, lambda: test_set))


def test_a_system_trains_by_adam_and_reports_its_exact_likelihood():
    run("A system")
    model = zoo.make(ConfigDict({"system": "gaussian", "data": {"shape": (2,), "levels": 0}}))
    x = np.array([[3.0, -1.0], [1.0, -2.0], [2.0, 0.5], [0.5, 0.5]], np.float32)
    states, seen = trained(model, [x] * 3)
    mean, m, v = np.zeros(2), 0.0, 0.0
    for n, loss in enumerate(seen, start=1):
        cost = 0.5 * ((x - mean) ** 2).sum(1) + np.log(2 * np.pi)
        np.testing.assert_allclose(loss, cost.mean(), rtol=1e-5)
        gradient = mean - x.mean(0)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        mean = mean - 0.1 * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        np.testing.assert_allclose(states[n].params["mean"], mean, rtol=1e-4)
    report = measured(model, states[-1].params, x)
    nats = (-0.5 * ((x - mean) ** 2).sum(1) - np.log(2 * np.pi)).mean()
    np.testing.assert_allclose(report["bound"]["nats"], nats, rtol=1e-4)
    assert measure.headline(model, report).startswith(f"bound {report['bound']['nats']:.4f} ± ")
    draws = np.asarray(model.sample(states[-1].params, KEY, 1000))
    assert abs(draws.mean(0) - mean).max() < 5 / 1000**0.5


def test_a_sampler_has_the_chains_marginals_at_every_time():
    run("A sampler")
    process, num = processes.gaussian(schedules.from_betas([0.5] * 4)), 2000
    stepper = samplers.make("renoise", process, {})
    predict = predictions.x0(lambda xt, t: 0.0 * xt + 2.0)  # exact for data that are all 2
    times = jnp.linspace(1.0, 0.0, 5)
    x0, path = samplers.sample(stepper, predict, KEY, times, (num, 1), save=lambda state: state.x)
    np.testing.assert_allclose(x0, 2.0, rtol=1e-6)
    path = np.asarray(path)[:-1, :, 0]
    for x, alpha_bar in zip(path, (0.5**3, 0.5**2, 0.5), strict=True):
        assert abs(x.mean() - 2.0 * alpha_bar**0.5) < 5 * ((1 - alpha_bar) / num) ** 0.5
        assert abs(x.var() - (1 - alpha_bar)) < 5 * (1 - alpha_bar) * (2 / num) ** 0.5
    # The noise is drawn anew: independent of that before.
    assert abs(np.corrcoef(path)[0, 1:]).max() < 5 / num**0.5


def test_a_schedule_is_a_name_of_every_chain():
    run("A schedule")
    made = schedules.make("constant", {"num_steps": 10, "beta_end": 0.1, "beta_start": 0.5}, schedules.CHAINS)
    of_ddpm = schedule_of(ConfigDict({"schedule": "constant", "num_steps": 10, "betas": (1e-4, 0.1)}))
    for schedule in (made, of_ddpm):
        alpha = jax.jit(schedule.alpha)(np.arange(11, dtype=np.float32) / 10)
        np.testing.assert_allclose(alpha**2, 0.9 ** np.arange(11), rtol=1e-5)


def test_a_loss_is_the_error_of_x0():
    run("A loss")
    loss = losses.chain_loss("error_of_x0", processes.gaussian(schedules.from_betas([0.5] * 4)), 4)
    x0 = np.array([[3.0, 1.0], [0.0, -2.0]], np.float32)
    guess = predictions.x0(lambda xt, t: jnp.ones_like(xt))
    found = jax.jit(lambda x0, t: loss(guess, KEY, x0, t))(x0, np.array([0.25, 0.75], np.float32))
    np.testing.assert_allclose(found, [(4 + 0) / 2, (1 + 9) / 2], rtol=1e-5)


def test_a_time_sampler_keeps_the_mean():
    run("A time sampler")
    num_steps, num = 10, 10_000
    t, w = time_sampling.TIME_SAMPLERS["late"](num_steps).sample((), KEY, num)
    t, w = np.asarray(t), np.asarray(w)
    grid = np.arange(1, num_steps + 1) / num_steps
    np.testing.assert_allclose(w * t, grid.mean(), rtol=1e-5)  # the same at every step
    for f in (np.ones_like, np.square):
        values = w * f(t)
        assert abs(values.mean() - f(grid).mean()) < 5 * values.std() / num**0.5
    # p_i ∝ i draws from the upper half 40 times out of 55.
    assert abs((t > 0.5).mean() - 40 / 55) < 5 * (40 * 15 / 55**2 / num) ** 0.5


def test_a_measure_is_found_counts_each_example_once_and_is_missed_by_name():
    sparsity = run("A measure")["Sparsity"]
    assert sparsity in measure.MEASURES
    x = np.array([[1.0, -1.0, 2.0], [-1.0, -2.0, 0.5], [3.0, 1.0, 1.0], [-1.0, -1.0, -1.0]], np.float32)

    def encode(params, batch):
        return jnp.maximum(params * batch["image"], 0.0)

    model = zoo.Model(lambda key: 1.0, lambda *args: 0.0, measures=[sparsity(encode)])
    # Batches of three: the second is filled up. Zeros: 1, 2, 0 and 3 of 3 each.
    assert measured(model, jnp.ones(()), x, sparsity_examples=4)["sparsity"] == 6 / 12
    assert measured(model, jnp.ones(()), x, sparsity_examples=2)["sparsity"] == 3 / 6
    assert "sparsity" not in measured(model, jnp.ones(()), x, sparsity_examples=0)
    with pytest.raises(InputError, match=r"evaluation\.sparsity_examples=4: 'example' has no encoder; set it to 0"):
        measured(model._replace(measures=()), jnp.ones(()), x, sparsity_examples=4)


def test_a_distance_by_new_features_is_in_the_report():
    run("A distance")
    run("Features")
    rng = np.random.default_rng(0)
    sets = [data.from_arrays("dots", rng.integers(0, 256, (num, 4, 6, 1)).astype(np.uint8)) for num in (40, 30)]
    dark = jnp.full((64, 4, 6, 1), -1.0)
    model = zoo.Model(lambda key: 1.0, lambda *args: 0.0, sample=lambda params, key, num: dark[:num])
    options = {"batch_size": 30, "num_examples": 0, "quality": "thumbnail:2", "quality_samples": 25}
    mesh = make_mesh(devices=jax.devices()[:1])
    report = Quality().measure(
        measure.Trained(model, "dark", jnp.ones(()), KEY, options, mesh, sets[1], lambda: sets[0]), {}
    )
    train = sets[0].gather(np.arange(40))["image"] / 255
    quarters = [train[:, i : i + 2, j : j + 3].mean((1, 2, 3)) for i in (0, 2) for j in (0, 3)]
    want = sum(quarter.mean() ** 2 for quarter in quarters)
    np.testing.assert_allclose(report["quality"]["shift/thumbnail2_256levels_n25_train40"]["value"], want, rtol=1e-5)


def test_a_memory_is_read_by_the_loss_and_updated_after_each_step():
    def loss(params, key, batch):
        return ((batch["image"] - batch["memory"] - params) ** 2).sum(-1)

    model = zoo.Model(lambda key: jnp.ones(2), loss, memory=run("A memory")["running_mean"])
    batches = np.random.default_rng(0).normal(2.0, 1.0, (3, 4, 2)).astype(np.float32)
    states, seen = trained(model, batches)
    memory = np.zeros(2)
    for state, after, batch, cost in zip(states, states[1:], batches, seen, strict=False):
        np.testing.assert_allclose(cost, ((batch - memory - state.params) ** 2).sum(1).mean(), rtol=1e-5)
        memory = 0.9 * memory + 0.1 * batch.mean(0)
        np.testing.assert_allclose(after.memory, memory, rtol=1e-5)


def test_a_figure_is_written_by_the_run(tmp_path):
    model = zoo.Model(lambda key: 1.0, lambda *args: 0.0, figures=run("A figure")["figures"])
    levels = np.array([-1.0, 1.0, -0.2, 0.6], np.float32).reshape(4, 1, 1, 1) * np.ones((4, 2, 2, 1), np.float32)
    params, batch = {"mean": levels[3]}, {"image": levels[:3]}
    Writer(tmp_path).figures(0, lambda: model.figures.own(params, KEY, batch))
    picture = np.asarray(Image.open(tmp_path / "samples/mean.png"))
    width = picture.shape[1] // 3
    assert [int(picture[len(picture) // 2, width // 2 + i * width, 0]) for i in range(3)] == [0, 255, 204]


def test_a_data_set_is_loaded_by_name():
    run("A data set")
    config = ConfigDict({"name": "ring", "shape": (2,), "num_train": 8, "num_test": 5})
    train, test = (data.load(config, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 5)
    for part in (train, test):
        np.testing.assert_allclose((part.gather(np.arange(5))["image"] ** 2).sum(1), 1.0, rtol=1e-5)
    assert not np.isin(test.gather(np.arange(5))["image"], train.gather(np.arange(8))["image"]).any()


def test_every_example_of_the_page_is_tested():
    assert len(EXAMPLES) == PAGE.count("```python") == 11
    source = Path(__file__).read_text()
    assert all(f'run("{name}")' in source for name in EXAMPLES)


def test_every_file_of_the_page_exists():
    for name in re.findall(r"`((?:diffjax|experiments|configs)/[\w/.]*)`", PAGE):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"[\w/]+\.py\b", PAGE):
        assert (ROOT / name).is_file() or (ROOT / "experiments" / name).is_file(), name


def test_no_room_imports_what_its_row_does_not_name():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|$", PAGE, flags=re.MULTILINE)
    allowed = {room: {room, *re.findall(r"`(\w+)`", may)} for room, may, _ in rows}
    packages = {room: set(re.findall(r"\w+", names)) for room, _, names in rows}
    named = re.search(r"│ (dtypes .*) \.\.\.", PAGE)[1].split()
    tools = {*named, "pytrees", "special"}  # the page's dots

    def room_of(module):
        first, _, rest = module.partition(".")
        name = rest.partition(".")[0] if first == "diffjax" else first
        return name if name in allowed else "tools" if name in tools else "mathematics"

    files = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "diffjax").glob("*/**/*.py")]
    files += (path for path in (ROOT / "diffjax").glob("*.py") if path.name != "__init__.py")
    for path in files:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in imports(path):
            outer = module.partition(".")[0]
            if outer in ("diffjax", "experiments", "configs"):
                assert room_of(module) in allowed[room], f"{path} imports {module}"
            elif room in ("mathematics", "tools") and outer not in sys.stdlib_module_names:
                assert outer in packages[room], f"{path} imports {module}"


def imports(path):
    """The names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = node.module in ("diffjax", "experiments")
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if whole else [node.module]
