"""The measure of log p(x) by the probability flow, compared with the bound on the same examples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax import Array

from diffjax.evaluation.bound import bits_words
from diffjax.evaluation.likelihood import bits, draw_log_weights
from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Flow(Measure):
    """log p(x) of `evaluation.flow_examples` examples, and how much it is above their bound.

    log_prob  (params, key, batch) -> (batch,), log p(x) in nats by the probability flow (Song et al. 2021). For data of
              levels, its expectation is a lower bound on their log-probability
    """

    log_prob: Callable[[Any, Array, Any], Array]

    name = "flow"
    needs = "probability flow"
    switch = "flow_examples"
    least: ClassVar[dict[str, int]] = {"flow_examples": 0}

    def measure(self, trained: Trained, report: Report) -> Report:
        shape, keys = trained.test_set.shape, jax.random.split(trained.key, 3)
        batches = list(trained.batches(trained.options["flow_examples"]))
        flow, bound = (
            draw_log_weights(fn, trained.params, keys[i], batches, 1, trained.spread)[0]
            for i, fn in enumerate((self.log_prob, trained.model.bound), start=1)
        )
        above = bits(flow - bound, shape)
        return {"flow": {"log p": bits(flow, shape), "above the bound": above, "num_examples": len(flow)}}

    def lines(self, report: Report) -> Iterator[str]:
        flow = report["flow"]
        yield f"probability flow, {flow['num_examples']} examples: {bits_words('log p', flow['log p'])}"
        yield bits_words("probability flow less bound, paired:", flow["above the bound"])
