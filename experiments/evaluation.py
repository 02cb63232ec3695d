"""What a trained system is measured by: bound, many samples, its own table, the Parzen window; and how to say it."""

import math
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax import data, zoo
from diffjax.errors import InputError
from diffjax.evaluation import parzen
from diffjax.evaluation.likelihood import bits, draw_log_weights, draw_many, evaluate_bound, log_mean, weights_report


class Sampler:
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


def load(config: ConfigDict, split: str) -> data.Dataset:
    dataset = data.load(config.data, split)
    if dataset.levels != config.data.levels:
        raise InputError(
            f"data.levels={config.data.levels}, but {config.data.name!r} has {dataset.levels} levels: "
            f"set data.levels={dataset.levels}"
        )
    return dataset


def evaluate(
    model: zoo.Model, config: ConfigDict, params: Any, test_set: data.Dataset, key: jax.Array
) -> dict[str, Any]:
    """The report that becomes eval.json, of the test split."""
    setting = config.evaluation
    shape = tuple(config.data.shape)

    def batches(num: int) -> Any:
        num = min(num or len(test_set), len(test_set))
        return data.epoch(replace(test_set, size=num), min(setting.batch_size, num))

    terms = jax.jit(model.terms)
    report = evaluate_bound(terms, params, key, batches(setting.num_examples), shape, model.null)
    report["terms_per_example"] = setting.num_terms or "all"
    if setting.get("num_weights"):
        report |= _many_samples(model, config, params, key, batches, report["bound"])
    if setting.get("flow_examples"):
        report["flow"] = _flow(model, config, params, key, batches(setting.flow_examples))
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
    few = min(setting.num_weights, 10) if model.log_weights else setting.num_weights
    log_w = draw_log_weights(model.log_weight, params, key, batches(setting.weighted_examples), few)
    own = None
    if model.log_weights is not None:
        own, key = log_w.mean(0), jax.random.split(key)[1]
        log_w = draw_many(model.log_weights, params, key, batches(setting.weighted_examples), setting.num_weights)
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
    annealed = draw_log_weights(model.annealed, params, key, some, setting.annealed_weights)
    difference = bits(log_mean(annealed) - log_mean(log_w), shape)
    return report | {"annealed": weights_report(annealed, shape) | {"difference": difference}}


def _flow(model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, batches: Any) -> dict[str, Any]:
    """log p(x) by the probability flow, and what it is above the bound of the same examples."""
    if model.log_prob is None:
        raise InputError(f"evaluation.flow_examples: {config.system!r} has no probability flow; set it to 0")
    shape = tuple(config.data.shape)
    batches = list(batches)
    flow, bound = (
        draw_log_weights(fn, params, jax.random.split(key, 3)[i], batches, 1)[0]
        for i, fn in enumerate((model.log_prob, model.bound), start=1)
    )
    return {"log p": bits(flow, shape), "above the bound": bits(flow - bound, shape), "num_examples": len(flow)}


def _parzen(model: zoo.Model, config: ConfigDict, params: Any, key: jax.Array, test_set: data.Dataset) -> dict:
    """Of samples in [0, 1], as Goodfellow et al. 2014; the bandwidth is chosen on the first tenth of the test set.

    And of as many training examples: what samples as good as the data would score.
    """
    num = config.evaluation.parzen_samples
    if test_set.levels < 2:
        raise InputError(f"evaluation.parzen_samples={num} is for data of levels, not for real numbers: set it to 0")
    sampler = Sampler(model, min(num, config.evaluation.batch_size))
    parts = [sampler(params, jax.random.fold_in(key, i)) for i in range(-(-num // sampler.num))]
    samples = 0.5 * (np.concatenate(parts)[:num].reshape(num, -1) + 1)

    def pixels(dataset: data.Dataset, first: int, last: int) -> np.ndarray:
        images = dataset.gather(np.arange(first, last))["image"]
        return images.reshape(last - first, -1) / (dataset.levels - 1)

    tenth = len(test_set) // 10
    held_out = pixels(test_set, 0, tenth), pixels(test_set, tenth, len(test_set))
    train_set = load(config, "train")
    real = pixels(train_set, 0, min(num, len(train_set)))
    return {"samples": parzen.report(samples, *held_out), "training examples": parzen.report(real, *held_out)}


def show(report: dict[str, Any]) -> None:
    """What there is of K, L_null and their difference, many samples, the system's own table and the Parzen window."""

    def words(name: str, value: dict[str, float]) -> str:
        pixel = f", {value['per_pixel']:.4f} a pixel" if "per_pixel" in value else ""
        nats = f"{value['nats']:.3f} ± {value['standard_error_nats']:.3f} nats"
        return f"{name} {value['per_example']:.4f} ± {value['standard_error']:.4f} bits ({nats}){pixel}"

    if "K" in report:
        print("; ".join(words(name, report[name]) for name in ("K", "L_null", "K - L_null")))
    for name in ("many samples", "annealed"):
        if many := report.get(name):
            names = f"{name}, {many['num_weights']} weights on {many['num_examples']} examples"
            print(f"{names}: {words('log p ≥', many['log p'])}; {words('the mean of log w', many['K'])}")
            if "difference" in many:
                print(words("annealed less many samples, paired:", many["difference"]))
    if whole := report.get("log p"):
        bound = f"bound {report['bound']['nats']:.2f} ± {report['bound']['standard_error_nats']:.2f} nats"
        print(f"all examples: {bound}, log p ≥ {whole['nats']:.2f} ± {whole['standard_error_nats']:.2f} nats")
    if flow := report.get("flow"):
        print(f"probability flow, {flow['num_examples']} examples: {words('log p', flow['log p'])}")
        print(words("probability flow less bound, paired:", flow["above the bound"]))
    for row, columns in report.get("table", {}).items():
        print(f"{row}: {', '.join(f'{name} {value:.4f}' for name, value in columns.items())}")
    if window := report.get("parzen"):
        for name, score in window.items():
            error = f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats"
            print(f"Parzen window of {score['num_samples']} {name}: {error} ({score['bits']:.1f} bits)")
