"""The measure of log p(x) of some examples by many log-weights, and by annealed importance sampling.

The gain of many weights over one varies little between examples. So the mean gain of some examples, added to the bound
of the whole test split, estimates log p(x) of the whole split.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax import Array

from diffjax.evaluation.bound import bits_words
from diffjax.evaluation.likelihood import bits, draw_log_weights, draw_many, log_mean, weights_report
from diffjax.evaluation.measure import Measure, Report, Trained, lacks

FEW = 10  # draws of the model's own log-weight, if `log_weights` gives the many draws


@dataclass(frozen=True)
class ManySamples(Measure):
    """The bound by `evaluation.num_weights` weights per example, on `evaluation.weighted_examples` examples.

    log_weight   (params, key, batch) -> (batch,), one draw of log w with E[w] = p(x), in nats
    log_weights  (params, key, batch, num) -> (num, batch), draws of log w by a proposal that is first fitted to the
                 examples, so they are better than those of `log_weight`. None if the system has none
    annealed     (params, key, batch) -> (batch,), log w by annealed importance sampling, to check the others. None if
                 the system has none
    """

    log_weight: Callable[[Any, Any, Any], Array]
    log_weights: Callable[[Any, Array, Any, int], Array] | None = None
    annealed: Callable[[Any, Any, Any], Array] | None = None

    name = "many samples"
    needs = "log-weights"
    switch = "num_weights"
    least: ClassVar[dict[str, int]] = {"num_weights": 0, "weighted_examples": 0, "annealed_weights": 0}

    def check(self, system: str, options: Mapping[str, Any], train_set: Any, test_set: Any) -> None:
        if options.get("annealed_weights") and self.annealed is None:
            raise lacks(system, "annealed_weights", options["annealed_weights"], "annealed importance sampling")

    def measure(self, trained: Trained, report: Report) -> Report:
        self.check(trained.system, trained.options, None, None)
        options, shape, params, key = trained.options, trained.test_set.shape, trained.params, trained.key
        num, examples, spread = options["num_weights"], options["weighted_examples"], trained.spread
        few = min(num, FEW) if self.log_weights else num
        log_w = draw_log_weights(self.log_weight, params, key, trained.batches(examples), few, spread)
        own = None
        if self.log_weights is not None:
            own, key = log_w.mean(0), jax.random.split(key)[1]
            log_w = draw_many(self.log_weights, params, key, trained.batches(examples), num, spread)
        many = weights_report(log_w, shape, own)
        found = {"many samples": many, "log p": _added(report["bound"], many["gain"])}
        if not options.get("annealed_weights"):
            return found
        key = jax.random.split(key)[1]  # draws that are independent of those it is compared with
        assert self.annealed is not None
        batches, num = trained.batches(examples), options["annealed_weights"]
        annealed = draw_log_weights(self.annealed, params, key, batches, num, spread)
        gain = bits(log_mean(annealed) - (log_w.mean(0) if own is None else own), shape)
        difference = {"difference": bits(log_mean(annealed) - log_mean(log_w), shape)}
        return found | {
            "annealed": weights_report(annealed, shape) | difference,
            "log p by annealing": _added(report["bound"], gain),
        }

    def lines(self, report: Report) -> Iterator[str]:
        for name in ("many samples", "annealed"):
            if many := report.get(name):
                names = f"{name}, {many['num_weights']} weights on {many['num_examples']} examples"
                log_p, one = bits_words("log p ≥", many["log p"]), bits_words("the mean of log w", many["K"])
                yield f"{names}: {log_p}; {one}"
                if "difference" in many:
                    yield bits_words("annealed less many samples, paired:", many["difference"])
        bound, whole = report["bound"], report["log p"]
        yield f"all examples: bound {_nats(bound)}, log p ≥ {_nats(whole)}"
        if whole := report.get("log p by annealing"):
            yield f"all examples: log p ≥ {_nats(whole)} by annealing"


def _added(bound: dict[str, float], gain: dict[str, float]) -> dict[str, float]:
    """The bound of all examples plus the gain of some, with the error of the sum."""
    error = math.hypot(bound["standard_error_nats"], gain["standard_error_nats"])
    return {"nats": bound["nats"] + gain["nats"], "standard_error_nats": error}


def _nats(value: dict[str, float]) -> str:
    return f"{value['nats']:.2f} ± {value['standard_error_nats']:.2f} nats"
