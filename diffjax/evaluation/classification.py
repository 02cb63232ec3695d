"""The measure of how often a classifier is wrong."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Classification(Measure):
    """The error rate in per cent, over the examples whose class is known. It is NaN if there are none.

    class_log_probs  (params, batch) -> (batch, classes), log p(y | x) in nats
    """

    class_log_probs: Callable[[Any, Any], Array]

    name = "classification"
    needs = "classifier"

    def measure(self, trained: Trained, report: Report) -> Report:
        log_probs = trained.spread(self.class_log_probs, batch_at=1)
        wrong = []
        for batch in trained.batches(trained.options["num_examples"]):
            real = (batch.pop("mask") > 0) & (batch["label"] >= 0)
            wrong.append((np.asarray(log_probs(trained.params, batch)).argmax(1) != batch["label"])[real])
        num = sum(map(len, wrong))
        rate = float(np.concatenate(wrong).mean()) if num else math.nan
        return {
            "classification": {
                "error_rate_percent": 100 * rate,
                "standard_error_percent": 100 * math.sqrt(rate * (1 - rate) / max(num, 1)),
                "num_examples": num,
            }
        }

    def headline(self, report: Report) -> str:
        error = report["classification"]
        return f"{error['error_rate_percent']:.2f} ± {error['standard_error_percent']:.2f}% wrong"

    def lines(self, report: Report) -> Iterator[str]:
        yield f"classification: {self.headline(report)} of {report['classification']['num_examples']} examples"

    def curves(self, report: Report) -> dict[str, float]:
        return {"error_rate_percent": report["classification"]["error_rate_percent"]}
