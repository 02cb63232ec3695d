"""What a trained system is measured by, as far as it has it.

The bound, many samples, the probability flow, the Parzen window; reconstruction, classification and a linear probe of
the features; and the system's own table.

What is measured example by example is spread over the devices: each computes its part of a batch, and every process has
the whole result. Batches are rounded up to what the devices can share, filled with examples that are not counted.
"""

import functools
import math
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffjax import data, zoo
from diffjax.data import labels
from diffjax.errors import InputError
from diffjax.evaluation import parzen, probe
from diffjax.evaluation.likelihood import bits, draw_log_weights, draw_many, evaluate_bound, log_mean, weights_report
from diffjax.mesh import divided, gather, here, share, spread

LEAST = {"batch_size": 1, "grid": 1, "bound_steps": 1}  # of the section `evaluation`
LEAST |= dict.fromkeys(("num_examples", "num_terms", "num_weights", "weighted_examples", "annealed_weights"), 0)
LEAST |= dict.fromkeys(("flow_examples", "parzen_samples"), 0)


class Sampler:
    """`model.sample`, compiled once for a number of images, of which each device draws its part; `images_per_second` of
    the latest call."""

    def __init__(self, model: zoo.Model, num: int, mesh: Mesh):
        many = share(mesh, num)

        def sample(params: Any, key: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(model.sample(gather(mesh, params), key, many), divided(mesh))

        self._sample = jax.jit(sample)
        self._mesh = mesh
        self.num = num
        self._compiled: Any = None
        self.images_per_second = float("nan")

    def __call__(self, params: Any, key: jax.Array) -> np.ndarray:
        self._compiled = self._compiled or self._sample.lower(params, key).compile()
        began = time.perf_counter()
        images = np.asarray(here(self._mesh, self._compiled(params, key)))[: self.num]
        self.images_per_second = self.num / (time.perf_counter() - began)
        return images


def load(config: ConfigDict, split: str) -> data.Dataset:
    dataset = data.load(config.data, split)
    if dataset.levels != config.data.levels:
        raise InputError(
            f"data.levels={config.data.levels}, but {config.data.name!r} has {dataset.levels} levels: "
            f"set data.levels={dataset.levels}"
        )
    return dataset


def check_numbers(config: ConfigDict) -> None:
    """Raises `InputError` unless the numbers of the section `evaluation` are integers in range."""
    for name, value in config.evaluation.items():
        least = LEAST.get(name)
        if least is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"evaluation.{name} = {value!r} must be an integer of at least {least}")


def standardise(config: ConfigDict, train_set: data.Dataset) -> bool:
    """Whether data.mean and data.std were None and now are those of the training examples.

    Raises `InputError` if they are numbers, but another set's.
    """
    if not train_set.levels or "mean" not in config.data or "std" not in config.data:
        return False
    mean, std = data.mean_and_std(train_set)
    if config.data.mean is None:
        config.data.update(mean=mean, std=std)
        return True
    if abs(config.data.mean - mean) > 0.1 * std or abs(config.data.std - std) > 0.1 * std:
        raise InputError(
            f"data.mean={config.data.mean} and data.std={config.data.std}, but the training examples of"
            f" {train_set.name!r} have {mean:.2f} and {std:.2f}: set these"
        )
    return False


def check(model: zoo.Model, config: ConfigDict, train_set: data.Dataset, test_set: data.Dataset) -> None:
    """What a run must not find out at its end only.

    Raises `InputError` if labels do not suit the system, or the probe asked for cannot be had.
    """
    if model.classes is not None:
        labels.check_labelled(train_set, *model.classes)
        for dataset in (train_set, test_set):
            labels.check_classes(dataset, *model.classes)
    if kind := config.evaluation.get("probe"):
        _check_features(model, config)
        probe.check(kind, train_set.gather(np.arange(len(train_set)))["label"])


def evaluate(
    model: zoo.Model, config: ConfigDict, params: Any, test_set: data.Dataset, key: jax.Array, mesh: Mesh
) -> dict[str, Any]:
    """The report that becomes eval.json, of the test split. The parameters lie on the mesh."""
    setting = config.evaluation
    shape = tuple(config.data.shape)
    jit = functools.partial(spread, mesh=mesh)

    def batches(num: int) -> Any:
        num = min(num or len(test_set), len(test_set))
        return data.epoch(replace(test_set, size=num), share(mesh, min(setting.batch_size, num)))

    report: dict[str, Any] = {"num_examples": min(setting.num_examples or len(test_set), len(test_set))}
    if model.terms is not None:
        report |= evaluate_bound(jit(model.terms), params, key, batches(setting.num_examples), shape, model.null)
        report["terms_per_example"] = setting.num_terms or "all"
    if model.reconstruct is not None:
        report["reconstruction"] = _reconstruction(
            jit(model.reconstruct), params, key, batches(setting.num_examples), test_set
        )
    if model.class_log_probs is not None:
        report["classification"] = _classification(
            jit(model.class_log_probs, batch_at=1), params, batches(setting.num_examples)
        )
    if setting.get("probe"):
        report["probe"] = _probe(model, config, params, test_set, mesh)
    if setting.get("num_weights"):
        report |= _many_samples(model, config, params, key, batches, report.get("bound", {}), jit)
    if setting.get("flow_examples"):
        report["flow"] = _flow(model, config, params, key, batches(setting.flow_examples), jit)
    if setting.get("parzen_samples"):
        report["parzen"] = _parzen(model, config, params, key, test_set, mesh)
    if model.table is not None:
        some = test_set.gather(np.arange(min(setting.batch_size, len(test_set))))
        report["table"] = model.table(here(mesh, params), key, some)
    return report


def _reconstruction(
    reconstruct: Any, params: Any, key: jax.Array, batches: Any, test_set: data.Dataset
) -> dict[str, Any]:
    """The mean squared error of an element, in units of the data's full range squared; vectors of real numbers have
    no such range and stay as they are."""
    images = len(test_set.shape) == 3
    theirs = (0.0, test_set.levels - 1) if test_set.levels else (-1.0, 1.0) if images else (0.0, 1.0)
    ours = (-1.0, 1.0) if images else (0.0, 1.0)

    def unit(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        return (values.astype(np.float64) - lowest) / (highest - lowest)

    errors = []
    for i, batch in enumerate(batches):
        real = batch.pop("mask") > 0
        y = np.asarray(reconstruct(params, jax.random.fold_in(key, i), batch))
        error = unit(batch["image"], *theirs) - unit(y, *ours)
        errors.append((error**2).reshape(len(error), -1).mean(1)[real])
    values = np.concatenate(errors)
    return {
        "mean_squared_error": float(values.mean()),
        "standard_error": float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan,
        "units": "range [0, 1]" if test_set.levels or images else "data",
        "num_examples": len(values),
    }


def _classification(log_probs: Any, params: Any, batches: Any) -> dict[str, Any]:
    """How many of a hundred examples whose class is known are given another one; NaN if there are none."""
    wrong = []
    for batch in batches:
        real = (batch.pop("mask") > 0) & (batch["label"] >= 0)
        wrong.append((np.asarray(log_probs(params, batch)).argmax(1) != batch["label"])[real])
    num = sum(map(len, wrong))
    rate = float(np.concatenate(wrong).mean()) if num else math.nan
    return {
        "error_rate_percent": 100 * rate,
        "standard_error_percent": 100 * math.sqrt(rate * (1 - rate) / max(num, 1)),
        "num_examples": num,
    }


def _probe(model: zoo.Model, config: ConfigDict, params: Any, test_set: data.Dataset, mesh: Mesh) -> dict[str, Any]:
    """A linear classifier of the features and, to compare, of the pixels."""
    _check_features(model, config)
    features = spread(model.features, mesh, batch_at=1)
    kind, batch_size = config.evaluation.probe, share(mesh, config.evaluation.batch_size)

    def read(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, pixels and labels of the labelled examples."""
        examples = dataset.gather(np.arange(len(dataset)))
        known = np.flatnonzero(examples["label"] >= 0)
        filled = np.resize(known, share(mesh, len(known)))
        parts = [
            np.asarray(features(params, {"image": examples["image"][filled[first : first + batch_size]]}))
            for first in range(0, len(filled), batch_size)
        ]
        images = examples["image"][known]
        return np.concatenate(parts)[: len(known)], images.reshape(len(images), -1), examples["label"][known]

    learnt, pixels, known = read(load(config, "train"))
    test_learnt, test_pixels, test_known = read(test_set)
    seed = config.training.seed
    return {
        "kind": kind,
        "features": probe.linear(kind, learnt, known, test_learnt, test_known, seed),
        "pixels": probe.linear(kind, pixels, known, test_pixels, test_known, seed),
    }


def _check_features(model: zoo.Model, config: ConfigDict) -> None:
    if model.features is None:
        raise InputError(f"evaluation.probe: {config.system!r} has no features; set it to ''")


def _many_samples(
    model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, batches: Any, bound: dict[str, float], jit: Any
) -> dict[str, Any]:
    """log p(x) of some examples by many log-weights, and by annealed importance sampling if that is asked for.

    What many weights gain on one varies little between examples: added to the bound of the whole test split, it gives
    log p of the whole.
    """
    setting = config.evaluation
    shape = tuple(config.data.shape)
    if model.log_weight is None or not bound:
        raise InputError(f"evaluation.num_weights: {config.system!r} has no log-weights; set it to 0")
    few = min(setting.num_weights, 10) if model.log_weights else setting.num_weights
    log_w = draw_log_weights(model.log_weight, params, key, batches(setting.weighted_examples), few, jit)
    own = None
    if model.log_weights is not None:
        own, key = log_w.mean(0), jax.random.split(key)[1]
        log_w = draw_many(model.log_weights, params, key, batches(setting.weighted_examples), setting.num_weights, jit)
    many = weights_report(log_w, shape, own)
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
    key = jax.random.split(key)[1]  # other draws than those it is compared with
    annealed = draw_log_weights(model.annealed, params, key, some, setting.annealed_weights, jit)
    gain = bits(log_mean(annealed) - (log_w.mean(0) if own is None else own), shape)
    error = math.hypot(bound["standard_error_nats"], gain["standard_error_nats"])
    return report | {
        "annealed": weights_report(annealed, shape) | {"difference": bits(log_mean(annealed) - log_mean(log_w), shape)},
        "log p by annealing": {"nats": bound["nats"] + gain["nats"], "standard_error_nats": error},
    }


def _flow(model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, batches: Any, jit: Any) -> dict[str, Any]:
    """log p(x) by the probability flow, and what it is above the bound of the same examples."""
    if model.log_prob is None or model.bound is None:
        raise InputError(f"evaluation.flow_examples: {config.system!r} has no probability flow; set it to 0")
    shape = tuple(config.data.shape)
    batches = list(batches)
    flow, bound = (
        draw_log_weights(fn, params, jax.random.split(key, 3)[i], batches, 1, jit)[0]
        for i, fn in enumerate((model.log_prob, model.bound), start=1)
    )
    return {"log p": bits(flow, shape), "above the bound": bits(flow - bound, shape), "num_examples": len(flow)}


def _parzen(
    model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, test_set: data.Dataset, mesh: Mesh
) -> dict[str, Any]:
    """Of samples in [0, 1], as Goodfellow et al. 2014; the bandwidth is chosen on the first tenth of the test set.

    And of as many training examples: what samples as good as the data would score.
    """
    num = config.evaluation.parzen_samples
    if model.sample is None:
        raise InputError(f"evaluation.parzen_samples={num}: {config.system!r} has no samples; set it to 0")
    if test_set.levels < 2:
        raise InputError(f"evaluation.parzen_samples={num} is for data of levels, not for real numbers: set it to 0")
    sampler = Sampler(model, min(num, config.evaluation.batch_size), mesh)
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // sampler.num))]
    samples = 0.5 * (np.concatenate(parts)[:num].reshape(num, -1) + 1)

    def pixels(dataset: data.Dataset, first: int, last: int) -> np.ndarray:
        images = dataset.gather(np.arange(first, last))["image"]
        return images.reshape(last - first, -1) / (dataset.levels - 1)

    tenth = max(len(test_set) // 10, 1)
    held_out = pixels(test_set, 0, tenth), pixels(test_set, tenth, len(test_set))
    train_set = load(config, "train")
    real = pixels(train_set, 0, min(num, len(train_set)))
    return {"samples": parzen.report(samples, *held_out), "training examples": parzen.report(real, *held_out)}
