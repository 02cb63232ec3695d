"""How a codebook is used: perplexity, and codes that no example has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Codes(Measure):
    """The perplexity exp H of the codes of each level over the test examples, and how many codes are used.

    codes      (params, batch) -> for each level the codes (batch, *grid)
    num_codes  K
    """

    codes: Callable[[Any, Any], list[Array]]
    num_codes: int

    name = "codes"
    needs = "codebook"

    def measure(self, trained: Trained, report: Report) -> Report:
        found = trained.spread(self.codes, batch_at=1)
        counts: list[np.ndarray] = []
        for batch in trained.batches(trained.options["num_examples"]):
            there = batch.pop("mask") > 0
            for level, codes in enumerate(found(trained.params, batch)):
                seen = np.bincount(np.asarray(codes)[there].ravel(), minlength=self.num_codes)
                counts = counts if level < len(counts) else [*counts, np.zeros(self.num_codes)]
                counts[level] = counts[level] + seen
        levels = []
        for count in counts:
            share = count[count > 0] / count.sum()
            levels.append({"perplexity": float(np.exp(-(share * np.log(share)).sum())), "used": int((count > 0).sum())})
        return {"codes": {"num_codes": self.num_codes, "levels": levels}}

    def lines(self, report: Report) -> Iterator[str]:
        for i, level in enumerate(report["codes"]["levels"]):
            used = f"{level['used']} of {report['codes']['num_codes']} codes used"
            yield f"codes of level {i}: perplexity {level['perplexity']:.1f}, {used}"

    def curves(self, report: Report) -> dict[str, float]:
        return {f"perplexity_{i}": level["perplexity"] for i, level in enumerate(report["codes"]["levels"])}
