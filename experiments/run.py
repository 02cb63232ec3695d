"""The three things to do with a system: train it, evaluate it, sample from it."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax import data
from diffjax.errors import InputError
from diffjax.evaluation import quality
from diffjax.evaluation.drawing import Sampler
from diffjax.evaluation.features import features_of
from diffjax.evaluation.measure import Trained, check_asked
from diffjax.evaluation.measure import evaluate as measured
from diffjax.evaluation.sides import Source, of_model, of_path
from diffjax.mesh import here
from diffjax.paths import local
from diffjax.randomness import check_seed
from diffjax.training.loop import train as train_loop
from diffjax.zoo.figures import Figure, Grid
from experiments import pictures, report, wandb_log
from experiments.opened import Run, notes, open_run, open_saved, open_to_train
from experiments.parameters import given_to, mean_of, restore_ema, start
from experiments.stopping import Stop
from experiments.writer import Writer, claimed, writer_of

# Numbers for `fold_in` on the run's key: each use of randomness outside training has its own.
GRID, BOUND, FIGURES, SAMPLE = range(4)


def train(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains to `training.steps`, from the newest checkpoint if there is one. Then evaluates and draws the figures.

    Returns the content of eval.json.

    SIGTERM and Ctrl-C stop it after a save, but only if it is called in the main thread.
    Raises `InputError` for a bad configuration or workdir, and what `training.loop.train` raises.
    """
    began = time.perf_counter()
    run = open_to_train(config, workdir)
    # All that may fail to be read, built or measured is tried before anything is written.
    given = {} if any(run.checkpoints.glob("[0-9]*")) else given_to(run)
    make_batches = _batches(run)
    make_batches(0)
    trained = trained_of(run, None)
    if run.options.get("quality"):
        features_of(trained)
    if run.wandb:
        wandb_log.check()
    with claimed(run.directory, run.saved, len(run.train_set())) as writer:
        writer.say(f"workdir: {run.directory}", *notes(run))
        if run.model.examples.fit is not None or given:
            start(run, given)
        sampler = Sampler(run.model, run.options["grid"], run.mesh) if run.model.sample else None
        logged: dict[str, float] = {}

        def on_log(step: int, values: dict[str, float]) -> None:
            logged.update(values)
            writer.scalars(step, values)

        def on_eval(step: int, state: Any) -> None:
            began = time.perf_counter()
            seen, path = {name: logged[name] for name in ("loss", "images_per_second") if name in logged}, None
            if sampler is not None:
                samples = sampler(mean_of(run, state), jax.random.fold_in(run.key, GRID))
                path = writer.samples(step, run.model.figures.samples(jnp.asarray(samples)))
            if run.options.get("quality") and run.options.get("quality_while_training"):
                found = quality.of_step(dataclasses.replace(trained, params=mean_of(run, state)))
                writer.scalars(step, found)
                seen |= found
            writer.say(report.line_of_step(step, seen, path, time.perf_counter() - began))

        with Stop() as stop:
            state = train_loop(
                run.model,
                run.settings,
                make_batches,
                run.checkpoints,
                meta={"config": run.saved},
                on_start=lambda step: writer.begin(step, run.saved, run.wandb),
                on_log=on_log,
                on_eval=on_eval,
                stop=stop,
            )
        mean = mean_of(run, state)
        found = measured(dataclasses.replace(trained, params=mean, show=_shown(writer))) | {
            "step": int(state.step),
            "ema_width": run.ema_width,
            "first_step_seconds": logged.get("first_step_seconds"),
            "input_wait": logged.get("input_wait"),
            "training_images_per_second": logged.get("images_per_second"),
            "sampling_images_per_second": sampler and sampler.images_per_second,
        }
        params = here(run.mesh, mean)  # all processes send their parts
        writer.figures(int(state.step), lambda: _figures(run, params))
        found = report.finished(found, began)
        writer.scalars(int(state.step), report.curves(run.model, run.options, found))
        _finish(run, writer, found)
    return found


def evaluate(config: ConfigDict, workdir: str | Path, step: int | None, against: str = "") -> dict[str, Any]:
    """Evaluates a checkpoint's EMA weights on the test split. Returns the report, writes eval.json, and prints it.

    against: the workdir of another run, or images. Then the samples of both are compared, and against.json is written.
    """
    began = time.perf_counter()
    run = open_run(config, workdir)
    check_asked(run.model, run.system, run.options)
    run.test_set()
    step, params = restore_ema(run, step)
    writer = writer_of(run.directory)
    trained = dataclasses.replace(trained_of(run, params), show=_shown(writer))
    if against:
        if not run.options.get("quality"):
            raise InputError("--against needs features to compare by: add --config.evaluation.quality=pixels")
        found = quality.against(trained, _others(trained, against))
        found |= {"step": step, "ema_width": run.ema_width, "against": against}
        found = report.finished(found, began)
        writer.report(found, "against.json")
        writer.say(*quality.told_of_both(found))
        return found
    found = report.finished(measured(trained) | {"step": step, "ema_width": run.ema_width}, began)
    _finish(run, writer, found)
    return found


def sample(config: ConfigDict, workdir: str | Path, step: int | None, num: int, seed: int) -> np.ndarray:
    """Draws samples with a checkpoint's EMA weights. Writes a picture of some, and all in an .npz, images as uint8.

    Returns the samples as the model gives them: floats (num, *event), images in [-1, 1].
    """
    if num < 1:
        raise InputError(f"--num must be at least 1, not {num}")
    check_seed("--seed", seed)
    run = open_run(config, workdir)
    if run.model.sample is None:
        raise InputError(f"--mode=sample: {run.system!r} is no model one can sample from; use --mode=eval")
    step, params = restore_ema(run, step)
    size = min(num, run.options["batch_size"])
    sampler = Sampler(run.model, size, run.mesh)
    key = jax.random.fold_in(jax.random.key(seed), SAMPLE)
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // size))]
    samples = np.concatenate(parts)[:num]
    width = f"_ema_{run.ema_width:g}" if run.ema_width else ""
    writer, name = writer_of(run.directory), f"{run.sampler}_step_{step:08d}{width}_seed_{seed}"
    picture = writer.figure(name, run.model.figures.samples(jnp.asarray(samples[: run.options["grid"]])))
    writer.arrays(name, {"images": pictures.pixels(samples)} if samples.ndim == 4 else {"samples": samples})
    writer.say(str(picture), str(picture.with_suffix(".npz")), f"{sampler.images_per_second:.4g} samples/s")
    return samples


def trained_of(run: Run, params: Any) -> Trained:
    """The trained model to evaluate. It can open other runs."""
    return run.trained(params, jax.random.fold_in(run.key, BOUND), _saved)


def _shown(writer: Writer) -> Callable[[str, np.ndarray, int], Any]:
    """A function that writes the pictures of measures with the writer."""
    return lambda name, images, columns: writer.figure(name, Grid(images, columns))


def _saved(directory: str) -> Trained:
    """The run in a workdir with its newest EMA weights."""
    run = open_saved(directory, "evaluation.quality")
    return trained_of(run, restore_ema(run, None)[1])


def _others(trained: Trained, path: str) -> Source:
    """The samples of the run in a workdir, or the images of a folder or of an .npz file."""
    place = local(path, "--against")
    if not place.exists():
        raise InputError(f"--against={path} does not exist: name a workdir, a folder of images or an .npz file")
    if not (place / "config.json").exists():
        return of_path(place, trained.test_set.shape, trained.test_set.levels)
    run = open_saved(place, "--against")
    if run.model.sample is None:
        raise InputError(f"--against={path}: {run.system!r} has no samples")
    other = dataclasses.replace(trained_of(run, restore_ema(run, None)[1]), test_set=trained.test_set)
    return of_model(other, quality.options_of(trained.options)["quality_samples"])


def _batches(run: Run) -> Callable[[int], Any]:
    """step -> this process's part of the training batches from that step on."""
    dataset, settings = run.train_set(), run.settings
    process = dict(process_index=jax.process_index(), process_count=jax.process_count())
    return lambda start: data.batches(dataset, settings.batch_size, seed=settings.seed, start=start, **process)


def _figures(run: Run, params: Any) -> dict[str, Figure]:
    """The system's own figures, for the first test examples."""
    test_set = run.test_set()
    num = 16 if len(test_set.shape) == 3 else run.options["grid"]
    batch = test_set.gather(np.arange(min(num, len(test_set))))
    return run.model.figures.own(params, jax.random.fold_in(run.key, FIGURES), batch)


def _finish(run: Run, writer: Writer, found: Mapping[str, Any]) -> None:
    writer.report(found)
    told = list(report.lines(run.model, run.options, found, run.directory / "eval.json"))
    writer.say(*told)
    writer.page(told)
