"""The three things a person does with a system: train it, evaluate it, sample from it."""

import math
import os
import platform
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax import data, zoo
from diffjax.errors import InputError
from diffjax.evaluation import parzen
from diffjax.evaluation.likelihood import bits, draw_log_weights, evaluate_bound, log_mean, weights_report
from diffjax.training.checkpoint import Checkpointer, abstract
from diffjax.training.config import training_config
from diffjax.training.loop import train as train_loop
from diffjax.training.sharding import check_batch_size
from diffjax.training.state import init_state, optimizer
from experiments import pictures
from experiments.workdir import Log, claim, write_json

# What follows `fold_in` on the run's key: each use of randomness outside training has a number of its own.
GRID, BOUND, FIGURES, SAMPLE = range(4)


def train(config: ConfigDict, workdir: Path) -> None:
    """Trains to `training.steps` from wherever the workdir stands, then evaluates and draws the system's figures."""
    began = time.perf_counter()
    settings = training_config({**config.training, "parallel": config.parallel})
    check_batch_size(settings.batch_size, jax.device_count())
    model = zoo.make(config)
    jax.eval_shape(model.init, jax.random.key(0))  # a network that cannot be built says so before anything is written
    train_set, test_set = _load(config, "train"), _load(config, "test")
    process = dict(process_index=jax.process_index(), process_count=jax.process_count())
    make_batches = _batches(train_set, settings.batch_size, settings.seed, process)
    make_batches(0)
    claim(workdir, config)
    print(f"workdir: {workdir}")

    key = jax.random.key(settings.seed)
    sampler = _Sampler(model, config.evaluation.grid)
    log: Log | None = None
    last: dict[str, float] = {}

    def on_log(step: int, values: dict[str, float]) -> None:
        nonlocal log
        log = log or Log(workdir, step - settings.log_every)
        last.update(values)
        log.scalars(step, values)

    def on_eval(step: int, state: Any) -> None:
        samples = sampler(state.ema, jax.random.fold_in(key, GRID))
        path = pictures.write(workdir / "samples" / f"step_{step:08d}", model.picture(samples))
        if log is not None:
            log.image(step, "samples", path)

    state = train_loop(
        model,
        settings,
        make_batches,
        workdir / "checkpoints",
        time_sampler=model.time_sampler,
        meta={"config": config.to_dict()},
        on_log=on_log,
        on_eval=on_eval,
    )
    report = _evaluate(model, config, state.ema, test_set) | {
        "step": int(state.step),
        "training_images_per_second": last.get("images_per_second"),
        "sampling_images_per_second": sampler.images_per_second,
    }
    _draw_figures(model, config, state.ema, test_set, jax.random.fold_in(key, FIGURES), workdir)
    _finish(report, workdir, began)
    if log is not None:
        log.scalars(int(state.step), {"bits_per_dim": report["bits_per_dim"]})
        log.close()


def evaluate(config: ConfigDict, workdir: Path, step: int | None) -> None:
    """The bound of the EMA weights of a checkpoint on the whole test split, to eval.json and the screen."""
    began = time.perf_counter()
    model = zoo.make(config)
    test_set = _load(config, "test")
    step, params = restore_ema(config, workdir, step)
    _finish(_evaluate(model, config, params, test_set) | {"step": step}, workdir, began)


def sample(config: ConfigDict, workdir: Path, step: int | None, num: int, seed: int) -> None:
    """Samples of a checkpoint's EMA weights: a picture of some, and all in an .npz, images as uint8."""
    if num < 1:
        raise InputError(f"--num must be at least 1, not {num}")
    model = zoo.make(config)
    step, params = restore_ema(config, workdir, step)
    size = min(num, config.evaluation.batch_size)
    sampler = _Sampler(model, size)
    key = jax.random.fold_in(jax.random.key(seed), SAMPLE)
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // size))]
    samples = np.concatenate(parts)[:num]
    setting = config.sampling
    path = workdir / "samples" / f"{setting.sampler}_{setting.steps}_step_{step:08d}_seed_{seed}"
    picture = pictures.write(path, model.picture(samples[: config.evaluation.grid]))
    raw = {"images": pictures.pixels(samples)} if samples.ndim == 4 else {"samples": samples}
    np.savez_compressed(path.with_suffix(".npz"), **raw)
    print(f"{picture}\n{path.with_suffix('.npz')}\n{sampler.images_per_second:.4g} samples/s")


def restore_ema(config: ConfigDict, workdir: Path, step: int | None) -> tuple[int, Any]:
    """The step and the EMA weights of a checkpoint, of the newest if `step` is None."""
    settings = training_config({**config.training, "parallel": config.parallel})
    model = zoo.make(config)
    shapes = jax.eval_shape(
        lambda key: init_state(key, model, optimizer(settings), model.time_sampler), jax.random.key(0)
    )
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        state, _ = checkpointer.restore(abstract(shapes, here), step)
    return int(state.step), state.ema


class _Sampler:
    """`model.sample`, compiled once for a number of images; `images_per_second` of the latest call."""

    def __init__(self, model: zoo.Model, num: int):
        self._sample = jax.jit(lambda params, key: model.sample(params, key, num))
        self.num = num
        self._compiled: Any = None
        self.images_per_second = float("nan")

    def __call__(self, params: Any, key: jax.Array) -> np.ndarray:
        self._compiled = self._compiled or self._sample.lower(params, key).compile()
        began = time.perf_counter()
        images = np.asarray(self._compiled(params, key))
        self.images_per_second = self.num / (time.perf_counter() - began)
        return images


def _load(config: ConfigDict, split: str) -> data.Dataset:
    dataset = data.load(config.data, split)
    if dataset.levels != config.data.levels:
        raise InputError(
            f"data.levels={config.data.levels}, but {config.data.name!r} has {dataset.levels} levels: "
            f"set data.levels={dataset.levels}"
        )
    return dataset


def _batches(dataset: data.Dataset, batch_size: int, seed: int, process: dict[str, int]):
    return lambda start: data.batches(dataset, batch_size, seed=seed, start=start, **process)


def _evaluate(model: zoo.Model, config: ConfigDict, params: Any, test_set: data.Dataset) -> dict[str, Any]:
    setting = config.evaluation
    shape = tuple(config.data.shape)
    key = jax.random.fold_in(jax.random.key(config.training.seed), BOUND)

    def batches(num: int) -> Any:
        num = min(num or len(test_set), len(test_set))
        return data.epoch(replace(test_set, size=num), min(setting.batch_size, num))

    terms = jax.jit(model.terms)
    report = evaluate_bound(terms, params, key, batches(setting.num_examples), shape, model.null)
    report["terms_per_example"] = setting.num_terms or "all"
    if setting.get("num_weights"):
        report |= _many_samples(model, config, params, key, batches, report["bound"])
    if setting.get("parzen_samples"):
        report["parzen"] = _parzen(model, config, params, key, test_set)
    if model.table is not None:
        some = test_set.gather(np.arange(min(setting.batch_size, len(test_set))))
        report["table"] = model.table(params, key, some)
    return report


def _many_samples(
    model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, batches: Any, bound: dict[str, float]
) -> dict[str, Any]:
    """log p(x) of some examples by many log-weights, and by annealed importance sampling if that is asked for.

    What many weights gain on one varies little between examples: added to the bound of the whole test split, it gives
    log p of the whole.
    """
    setting = config.evaluation
    shape = tuple(config.data.shape)
    if model.log_weight is None:
        raise InputError(f"evaluation.num_weights: {config.system!r} has no log-weights; set it to 0")
    log_w = draw_log_weights(
        jax.jit(model.log_weight), params, key, batches(setting.weighted_examples), setting.num_weights
    )
    many = weights_report(log_w, shape)
    error = math.hypot(bound["standard_error_nats"], many["gain"]["standard_error_nats"])
    report = {
        "many samples": many,
        "log p": {"nats": bound["nats"] + many["gain"]["nats"], "standard_error_nats": error},
    }
    if not setting.get("annealed_weights"):
        return report
    if model.annealed is None:
        raise InputError(f"evaluation.annealed_weights: {config.system!r} cannot be annealed; set it to 0")
    some = batches(setting.weighted_examples)
    annealed = draw_log_weights(jax.jit(model.annealed), params, key, some, setting.annealed_weights)
    difference = bits(log_mean(annealed) - log_mean(log_w), shape)
    return report | {"annealed": weights_report(annealed, shape) | {"difference": difference}}


def _parzen(model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, test_set: data.Dataset) -> dict:
    """Of samples in [0, 1], as Goodfellow et al. 2014; the bandwidth is chosen on the first tenth of the test set.

    And of as many training examples: what samples as good as the data would score.
    """
    num = config.evaluation.parzen_samples
    if test_set.levels < 2:
        raise InputError(f"evaluation.parzen_samples={num} is for data of levels, not for real numbers: set it to 0")
    sampler = _Sampler(model, min(num, config.evaluation.batch_size))
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // sampler.num))]
    samples = 0.5 * (np.concatenate(parts)[:num].reshape(num, -1) + 1)

    def pixels(dataset: data.Dataset, first: int, last: int) -> np.ndarray:
        images = dataset.gather(np.arange(first, last))["image"]
        return images.reshape(last - first, -1) / (dataset.levels - 1)

    tenth = len(test_set) // 10
    held_out = pixels(test_set, 0, tenth), pixels(test_set, tenth, len(test_set))
    train_set = _load(config, "train")
    real = pixels(train_set, 0, min(num, len(train_set)))
    return {"samples": parzen.report(samples, *held_out), "training examples": parzen.report(real, *held_out)}


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
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # Linux counts in KiB
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "devices": [device.device_kind for device in jax.devices()],
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
    }
    write_json(workdir / "eval.json", report)
    terms = ", ".join(f"{name} {value:.4f}" for name, value in report["terms"].items())
    print(
        f"step {report['step']}: {report['bits_per_dim']:.4f} ± {report['standard_error']:.4f} bits/dim on "
        f"{report['num_examples']} held-out examples ({terms}); {workdir / 'eval.json'}"
    )
    _print_extra(report)


def _print_extra(report: dict[str, Any]) -> None:
    """What there is of K, L_null and their difference, many samples, the system's own table and the Parzen window."""

    def show(name: str, value: dict[str, float]) -> str:
        pixel = f", {value['per_pixel']:.4f} a pixel" if "per_pixel" in value else ""
        nats = f"{value['nats']:.3f} ± {value['standard_error_nats']:.3f} nats"
        return f"{name} {value['per_example']:.4f} ± {value['standard_error']:.4f} bits ({nats}){pixel}"

    if "K" in report:
        print("; ".join(show(name, report[name]) for name in ("K", "L_null", "K - L_null")))
    for name in ("many samples", "annealed"):
        if many := report.get(name):
            names = f"{name}, {many['num_weights']} weights on {many['num_examples']} examples"
            print(f"{names}: {show('log p ≥', many['log p'])}; {show('the mean of log w', many['K'])}")
            if "difference" in many:
                print(show("annealed less many samples, paired:", many["difference"]))
    if whole := report.get("log p"):
        bound = f"bound {report['bound']['nats']:.2f} ± {report['bound']['standard_error_nats']:.2f} nats"
        print(f"all examples: {bound}, log p ≥ {whole['nats']:.2f} ± {whole['standard_error_nats']:.2f} nats")
    for row, columns in report.get("table", {}).items():
        print(f"{row}: {', '.join(f'{name} {value:.4f}' for name, value in columns.items())}")
    if window := report.get("parzen"):
        for name, score in window.items():
            error = f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats"
            print(f"Parzen window of {score['num_samples']} {name}: {error} ({score['bits']:.1f} bits)")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
