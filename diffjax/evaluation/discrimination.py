"""How well a discriminator tells held-out examples from samples."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from diffjax.evaluation.measure import Measure, Report, Trained


def ranking(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """P(D(x) > D(y)) + ½ P(D(x) = D(y)), the area under the ROC curve, with its standard error (DeLong et al. 1988).

    real: D of examples (n,). fake: D of samples (m,).
    """

    def below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        """For each value, the share of the others below it. Ties count half."""
        others = np.sort(others)
        less, upto = (np.searchsorted(others, values, side) for side in ("left", "right"))
        return (less + upto) / (2 * len(others))

    of_real, of_fake = below(real, fake), below(fake, real)
    variance = sum(x.var(ddof=1) / len(x) if len(x) > 1 else math.nan for x in (of_real, of_fake))
    return float(of_real.mean()), math.sqrt(variance)


@dataclass(frozen=True)
class Discrimination(Measure):
    """How often the discriminator ranks an example above a sample, in per cent of pairs. 50 is a draw.

    A draw alone is no success: a discriminator that has learned nothing gives it, too.

    judged  (params, key, batch) -> D of the examples (batch,), and D of as many samples (batch,)
    """

    judged: Callable[[Any, Any, Any], tuple[Array, Array]]

    name = "discrimination"
    needs = "discriminator"

    def measure(self, trained: Trained, report: Report) -> Report:
        judged = trained.spread(self.judged)
        real, fake = [], []
        for i, batch in enumerate(trained.batches(trained.options["num_examples"])):
            there = batch.pop("mask") > 0
            of_data, of_samples = judged(trained.params, jax.random.fold_in(trained.key, i), batch)
            real.append(np.asarray(of_data, np.float64)[there])
            fake.append(np.asarray(of_samples, np.float64)[there])
        share, error = ranking(np.concatenate(real), np.concatenate(fake))
        return {
            "discrimination": {
                "told_apart_percent": 100 * share,
                "standard_error_percent": 100 * error,
                "mean_of_data": float(np.concatenate(real).mean()),
                "mean_of_samples": float(np.concatenate(fake).mean()),
            }
        }

    def headline(self, report: Report) -> str:
        found = report["discrimination"]
        share, error = found["told_apart_percent"], found["standard_error_percent"]
        return f"told from samples in {share:.2f} ± {error:.2f}% of pairs (50: not at all)"

    def lines(self, report: Report) -> Iterator[str]:
        found = report["discrimination"]
        yield f"discriminator's mean: {found['mean_of_data']:.3f} on data, {found['mean_of_samples']:.3f} on samples"

    def curves(self, report: Report) -> dict[str, float]:
        return {"told_apart_percent": report["discrimination"]["told_apart_percent"]}
