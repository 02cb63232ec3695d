"""The measure for a system's own numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Table(Measure):
    """A table of numbers for the first batch of the test split. It goes to eval.json and to the screen.

    table  (params, key, batch) -> {row: {column: number}}
    """

    table: Callable[[Any, Array, Any], dict[str, dict[str, float]]]

    name = "table"
    needs = "table"

    def measure(self, trained: Trained, report: Report) -> Report:
        some = trained.test_set.gather(np.arange(min(trained.options["batch_size"], len(trained.test_set))))
        return {"table": self.table(trained.whole_params(), trained.key, some)}

    def headline(self, report: Report) -> str:
        return next(self.lines(report))

    def lines(self, report: Report) -> Iterator[str]:
        for row, columns in report["table"].items():
            yield f"{row}: {', '.join(f'{name} {value:.4f}' for name, value in columns.items())}"
