"""log p(x) of a model that is known up to a constant, p(x) = f(x)/Z, with log Z by annealed importance sampling.

The mean weight of the chains is Z without bias. So the estimate of log Z is too low on average, and log p(x) by it too
high, by about half the variance of a weight over the number of chains: less than its error where chains agree.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array

from diffjax.evaluation.likelihood import bits, draw_log_weights, log_mean
from diffjax.evaluation.measure import Measure, Report, Trained

EXAMPLES = 10_000  # of the training set, for where the annealing starts


@dataclass(frozen=True)
class Partition(Measure):
    """log p(x) in nats on the test examples, or a bound on it where `log_density` is one.

    log_density    (params, key, batch) -> (batch,), log f(x), or a draw of log w with E[w] = f(x), of which
                   `evaluation.density_weights` are averaged
    log_partition  (params, key, examples, num) -> (num,), log-weights with E[w] = Z. The examples, a batch of training
                   examples, say where to start
    exact          params -> log Z, where it can be had
    bound          whether log f(x) is bounded from below rather than known
    """

    log_density: Callable[[Any, Any, Any], Array]
    log_partition: Callable[[Any, Array, Any, int], Array]
    exact: Callable[[Any], Array] | None = None
    bound: bool = False

    name = "partition function"
    needs = "partition function"
    least: ClassVar[dict[str, int]] = {"annealing_chains": 1, "density_weights": 1}

    def measure(self, trained: Trained, report: Report) -> Report:
        options, shape, params = trained.options, trained.test_set.shape, trained.params
        num, num_weights = options["annealing_chains"], options.get("density_weights", 1)
        batches = trained.batches(options["num_examples"])
        log_f = draw_log_weights(self.log_density, params, trained.key, batches, num_weights, trained.spread)
        train_set = trained.train_set()
        examples = train_set.gather(np.arange(min(EXAMPLES, len(train_set))))
        annealed = trained.once("annealed", lambda: jax.jit(self.log_partition, static_argnums=3))
        key = jax.random.fold_in(trained.key, len(log_f))
        log_w = np.asarray(annealed(trained.whole_params(), key, examples, num), np.float64)
        log_z, error = _estimate(log_w)
        found: Report = {"log Z": {"nats": log_z, "standard_error_nats": error, "num_chains": num}}
        if self.exact is not None:
            found["log Z"]["exact"] = log_z = float(jax.jit(self.exact)(trained.whole_params()))
            error = 0.0
        for name, values in (("log p", log_mean(log_f)), ("log p by one weight", log_f.mean(0))):
            if name == "log p" or num_weights > 1:
                found[name] = bits(values - log_z, shape)
                both = math.hypot(found[name]["standard_error_nats"], error)
                found[name] |= {"standard_error_nats": both, "standard_error": both / math.log(2.0)}
        return found | {"density_weights": num_weights}

    def headline(self, report: Report) -> str:
        value = report["log p"]
        sign = "≥" if self.bound else "="
        return f"log p(x) {sign} {value['nats']:.2f} ± {value['standard_error_nats']:.2f} nats"

    def lines(self, report: Report) -> Iterator[str]:
        log_z = report["log Z"]
        chains = (
            f"{log_z['nats']:.2f} ± {log_z['standard_error_nats']:.2f} nats by {log_z['num_chains']} annealed chains"
        )
        exact = f", {log_z['exact']:.2f} by enumeration, which is used" if "exact" in log_z else ""
        yield f"log Z = {chains}{exact}"
        if one := report.get("log p by one weight"):
            error = f"{one['nats']:.2f} ± {one['standard_error_nats']:.2f} nats"
            yield f"log p(x) ≥ {error} by one weight an example, {report['density_weights']} in the headline"

    def curves(self, report: Report) -> dict[str, float]:
        return {"log_p_nats": report["log p"]["nats"]}


def _estimate(log_w: np.ndarray) -> tuple[float, float]:
    """log of the mean weight, and its error by the spread of the weights. Of one chain there is no error."""
    largest = log_w.max()
    w = np.exp(log_w - largest)
    error = float(w.std(ddof=1) / w.mean()) / math.sqrt(len(w)) if len(w) > 1 else math.nan
    return float(largest + math.log(w.mean())), error
