"""The three things a person does with a system: train it, evaluate it, sample from it."""

import contextlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax import data, zoo
from diffjax.errors import InputError
from diffjax.mesh import DATA_PARALLEL, here, make_mesh
from diffjax.paths import local
from diffjax.randomness import check_seed
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.loop import abstract_state
from diffjax.training.loop import train as train_loop
from diffjax.training.sharding import check_batch_size, parallelize
from diffjax.training.state import check_parts, init_state, optimizer
from diffjax.training.step import make_step
from experiments import evaluation, pictures
from experiments import report as report_of
from experiments.evaluation import Sampler, load
from experiments.stopping import Stop
from experiments.workdir import Log, claim, plain, read_config, write_json

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

# What follows `fold_in` on the run's key: each use of randomness outside training has a number of its own.
GRID, BOUND, FIGURES, SAMPLE = range(4)


def train(config: ConfigDict, workdir: str | Path) -> None:
    """Trains to `training.steps` from wherever the workdir stands, then evaluates and draws the system's figures.

    SIGTERM and Ctrl-C stop it after a save, but only where it is called in the main thread.
    Raises `InputError` for a bad configuration or workdir, and what `training.loop.train` raises.
    """
    began = time.perf_counter()
    workdir = local(workdir, "workdir")
    settings = settings_of(config)
    evaluation.check_numbers(config)
    mesh = make_mesh(settings.mesh)
    check_batch_size(settings.batch_size, mesh.size, settings.accumulate)
    # What cannot be read, built or measured says so before anything is written.
    train_set, test_set = load(config, "train"), load(config, "test")
    evaluation.standardise(config, train_set)
    model = zoo.make(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    check_parts(settings, shapes)
    given = {} if any((workdir / "checkpoints").glob("[0-9]*")) else _given(config, shapes)
    evaluation.check(model, config, train_set, test_set)
    process = dict(process_index=jax.process_index(), process_count=jax.process_count())
    make_batches = _batches(train_set, settings.batch_size, settings.seed, process)
    make_batches(0)
    speaks = jax.process_index() == 0
    key = jax.random.key(settings.seed)
    meta = {"config": plain(config)}
    with contextlib.ExitStack() as until_done:
        until_done.enter_context(claim(workdir, config, writes=speaks))
        if speaks:
            print(f"workdir: {workdir}")
        if model.fit is not None or given:
            _start(model, settings, train_set, given, workdir / "checkpoints", meta)
        sampler = Sampler(model, config.evaluation.grid, mesh) if model.sample else None
        log: Log | None = None
        last: dict[str, float] = {}

        def on_start(step: int) -> None:
            nonlocal log
            if speaks:
                log = until_done.enter_context(contextlib.closing(Log(workdir, step)))

        def on_log(step: int, values: dict[str, float]) -> None:
            last.update(values)
            if log is not None:
                log.scalars(step, values)

        def on_eval(step: int, state: Any) -> None:
            if sampler is None:
                return
            samples = sampler(state.ema, jax.random.fold_in(key, GRID))
            if log is not None:
                path = pictures.write(workdir / "samples" / f"step_{step:08d}", model.picture(samples))
                log.image(step, "samples", path)

        with Stop() as stop:
            state = train_loop(
                model,
                settings,
                make_batches,
                workdir / "checkpoints",
                meta=meta,
                on_start=on_start,
                on_log=on_log,
                on_eval=on_eval,
                stop=stop,
            )
        report = evaluation.evaluate(model, config, state.ema, test_set, jax.random.fold_in(key, BOUND), mesh) | {
            "step": int(state.step),
            "first_step_seconds": last.get("first_step_seconds"),
            "input_wait": last.get("input_wait"),
            "training_images_per_second": last.get("images_per_second"),
            "sampling_images_per_second": sampler and sampler.images_per_second,
        }
        params = here(mesh, state.ema)  # all processes send their parts
        if log is not None:
            _draw_figures(model, config, params, test_set, jax.random.fold_in(key, FIGURES), workdir)
            _finish(report, workdir, began)
            log.scalars(int(state.step), report_of.scalars(report))


def evaluate(config: ConfigDict, workdir: str | Path, step: int | None) -> None:
    """What `evaluation` measures of a checkpoint's EMA weights on the test split, to eval.json and the screen."""
    began = time.perf_counter()
    workdir = local(workdir, "workdir")
    evaluation.check_numbers(config)
    test_set = load(config, "test")
    model = zoo.make(config)
    mesh = make_mesh(settings_of(config).mesh)
    step, params = restore_ema(config, workdir, step)
    key = jax.random.fold_in(jax.random.key(config.training.seed), BOUND)
    report = evaluation.evaluate(model, config, params, test_set, key, mesh) | {"step": step}
    if jax.process_index() == 0:
        _finish(report, workdir, began)


def sample(config: ConfigDict, workdir: str | Path, step: int | None, num: int, seed: int) -> None:
    """Samples of a checkpoint's EMA weights: a picture of some, and all in an .npz, images as uint8."""
    workdir = local(workdir, "workdir")
    if num < 1:
        raise InputError(f"--num must be at least 1, not {num}")
    check_seed("--seed", seed)
    evaluation.check_numbers(config)
    model = zoo.make(config)
    if model.sample is None:
        raise InputError(f"--mode=sample: {config.system!r} is no model one can sample from; use --mode=eval")
    step, params = restore_ema(config, workdir, step)
    size = min(num, config.evaluation.batch_size)
    sampler = Sampler(model, size, make_mesh(settings_of(config).mesh))
    key = jax.random.fold_in(jax.random.key(seed), SAMPLE)
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // size))]
    samples = np.concatenate(parts)[:num]
    if jax.process_index():
        return
    setting = config.sampling
    path = workdir / "samples" / f"{setting.sampler}_{setting.steps}_step_{step:08d}_seed_{seed}"
    picture = pictures.write(path, model.picture(samples[: config.evaluation.grid]))
    raw = {"images": pictures.pixels(samples)} if samples.ndim == 4 else {"samples": samples}
    np.savez_compressed(path.with_suffix(".npz"), **raw)
    print(f"{picture}\n{path.with_suffix('.npz')}\n{sampler.images_per_second:.4g} samples/s")


def settings_of(config: ConfigDict) -> TrainingConfig:
    """The checked section `training`, with what stands beside it; old runs have no mesh."""
    return training_config({**config.training, "parallel": config.parallel, "mesh": config.get("mesh", DATA_PARALLEL)})


def restore_ema(config: ConfigDict, workdir: str | Path, step: int | None) -> tuple[int, Any]:
    """The step and the EMA weights of a checkpoint, of the newest if `step` is None, on the configuration's mesh."""
    settings = settings_of(config)
    model = zoo.make(config)
    with Checkpointer(local(workdir, "workdir") / "checkpoints", read_only=True) as checkpointer:
        state, _ = checkpointer.restore(_wanted(model, settings), step)
    return int(state.step), state.ema


def _wanted(model: zoo.Model, settings: TrainingConfig) -> Any:
    """The shapes of the state, and where on the configuration's mesh it lies."""
    layout = parallelize(make_step(model, optimizer(settings), settings), settings.parallel, axes=settings.mesh)
    return abstract_state(layout, model, settings)


def _start(
    model: zoo.Model,
    settings: TrainingConfig,
    train_set: data.Dataset,
    given: dict[str, Any],
    directory: Path,
    meta: dict[str, Any],
) -> None:
    """Checkpoint 0, where there is none yet, of parameters that are fitted, or given: training restores it."""
    with Checkpointer(directory, settings.keep_every) as checkpointer:
        if checkpointer.latest_step() is not None:
            return
        key = jax.random.key(settings.seed, impl="threefry2x32")
        state = jax.jit(lambda key: init_state(key, model, optimizer(settings)))(key)
        params = state.params
        if model.fit is not None:
            params = model.fit(params, train_set.gather(np.arange(len(train_set))))
        params = params | given if given else params
        params, ema = (
            jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), params, like)
            for like in (state.params, state.ema)
        )
        places = jax.tree.map(lambda x: x.sharding, _wanted(model, settings))
        state = jax.device_put(state._replace(params=params, ema=ema), places)
        checkpointer.save(0, state, meta | {"step": 0, "examples_seen": 0})


def _given(config: ConfigDict, shapes: Any) -> dict[str, Any]:
    """The parts of the parameters, by name, that the newest checkpoint of the run `init_from` has, too."""
    if not config.get("init_from"):
        return {}
    workdir = local(config.init_from, "init_from")
    theirs = read_config(workdir, "init_from")
    others = here(make_mesh(settings_of(theirs).mesh), restore_ema(theirs, workdir, None)[1])
    shared = shapes.keys() & others.keys()
    if not shared or any(_shapes(shapes[name]) != _shapes(others[name]) for name in shared):
        raise InputError(
            f"init_from={str(workdir)!r} has the parts {', '.join(others)}, of which none is one of "
            f"{', '.join(shapes)}, or not of the same sizes: name a run with the same network"
        )
    return {name: others[name] for name in shared}


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, params)


def _batches(dataset: data.Dataset, batch_size: int, seed: int, process: dict[str, int]):
    return lambda start: data.batches(dataset, batch_size, seed=seed, start=start, **process)


def _draw_figures(
    model: zoo.Model, config: ConfigDict, params: Any, test_set: data.Dataset, key: jax.Array, workdir: Path
) -> None:
    num = 16 if len(config.data.shape) == 3 else config.evaluation.grid
    batch = test_set.gather(np.arange(min(num, len(test_set))))
    for name, figure in model.figures(params, key, batch).items():
        pictures.write(workdir / "samples" / name, figure)


def _finish(report: dict[str, Any], workdir: Path, began: float) -> None:
    report = report | {
        "wall_seconds": time.perf_counter() - began,
        "peak_memory_gb": _peak_memory(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "devices": [device.device_kind for device in jax.devices()],
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
    }
    write_json(workdir / "eval.json", report)
    print(f"step {report['step']}: {report_of.headline(report)}; {workdir / 'eval.json'}")
    report_of.show(report)


def _peak_memory() -> float | None:
    """In GiB; None where it is not known."""
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 2**10  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
