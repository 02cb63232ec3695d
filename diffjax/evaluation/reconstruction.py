"""The measure of how well encoder and decoder reconstruct an example."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Reconstruction(Measure):
    """The mean squared error per element, in units of the squared range of the data.

    Vectors of real numbers have no such range: their error is in their own units.

    reconstruct  (params, key, batch) -> (batch, *event), the reconstructed examples, scaled as samples are
    """

    reconstruct: Callable[[Any, Any, Any], Array]

    name = "reconstruction"
    needs = "reconstruction"

    def measure(self, trained: Trained, report: Report) -> Report:
        levels, images = trained.test_set.levels, len(trained.test_set.shape) == 3
        theirs = (0.0, levels - 1) if levels else (-1.0, 1.0) if images else (0.0, 1.0)
        ours = (-1.0, 1.0) if images else (0.0, 1.0)
        reconstruct = trained.spread(self.reconstruct)

        def unit(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
            return (values.astype(np.float64) - lowest) / (highest - lowest)

        errors = []
        for i, batch in enumerate(trained.batches(trained.options["num_examples"])):
            real = batch.pop("mask") > 0
            y = np.asarray(reconstruct(trained.params, jax.random.fold_in(trained.key, i), batch))
            error = unit(batch["image"], *theirs) - unit(y, *ours)
            errors.append((error**2).reshape(len(error), -1).mean(1)[real])
        values = np.concatenate(errors)
        return {
            "reconstruction": {
                "mean_squared_error": float(values.mean()),
                "standard_error": float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan,
                "units": "range [0, 1]" if levels or images else "data",
                "num_examples": len(values),
            }
        }

    def headline(self, report: Report) -> str:
        error = report["reconstruction"]
        return f"mean squared error {error['mean_squared_error']:.5f} ± {error['standard_error']:.5f} an element"

    def lines(self, report: Report) -> Iterator[str]:
        error = report["reconstruction"]
        numbers = f"in units of the {error['units']}, {error['num_examples']} examples"
        yield f"reconstruction: {self.headline(report)}, {numbers}"

    def curves(self, report: Report) -> dict[str, float]:
        return {"reconstruction": report["reconstruction"]["mean_squared_error"]}
