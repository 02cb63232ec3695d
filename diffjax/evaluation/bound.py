"""The measure of the bound on log p(x) and its terms, for every system that has a bound."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jax import Array

from diffjax.evaluation.likelihood import evaluate_bound
from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Bound(Measure):
    """The mean of -bound over the test examples, with its standard error.

    terms   (params, key, batch) -> {name: (batch,)}, costs in nats whose sum is -bound. "units", if present, is the
            cost of rescaling to unit variance: the sum of the other terms is -bound on the density of the rescaled data
    null    batch -> (batch,), log p(x) in nats under the prior itself, in the units of the bound. It is the result of
            learning nothing (L_null of Sohl-Dickstein et al. 2015). None if it is not informative
    unit    of the headline: bits per dimension for data, nats for a posterior over parameters
    """

    terms: Callable[[Any, Any, Any], dict[str, Array]]
    null: Callable[[Any], Array] | None = None
    unit: Literal["bits/dim", "nats"] = "bits/dim"

    name = "bound"
    needs = "bound"
    least: ClassVar[dict[str, int]] = {"num_terms": 0}

    def measure(self, trained: Trained, report: Report) -> Report:
        options, shape = trained.options, trained.test_set.shape
        batches = trained.batches(options["num_examples"])
        found = evaluate_bound(trained.spread(self.terms), trained.params, trained.key, batches, shape, self.null)
        if self.unit == "nats":
            per_bit = found["bound"]["nats"] / -found["bits_per_dim"] if found["bits_per_dim"] else 1.0
            found["terms"] = {name: value * per_bit for name, value in found["terms"].items()}
            del found["bits_per_dim"], found["standard_error"]
        return found | {"terms_per_example": options.get("num_terms") or "all"}

    def headline(self, report: Report) -> str:
        if self.unit == "nats":
            bound = report["bound"]
            return f"bound {bound['nats']:.4f} ± {bound['standard_error_nats']:.4f} nats"
        return f"{report['bits_per_dim']:.4f} ± {report['standard_error']:.4f} bits/dim"

    def lines(self, report: Report) -> Iterator[str]:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in report["terms"].items())
        yield f"terms of the bound, in {self.unit}: {terms}"
        if "K" in report:
            yield "; ".join(bits_words(name, report[name]) for name in ("K", "L_null", "K - L_null"))

    def curves(self, report: Report) -> dict[str, float]:
        if self.unit == "nats":
            return {"bound_nats": report["bound"]["nats"]}
        return {"bits_per_dim": report["bits_per_dim"]}


def bits_words(name: str, value: dict[str, float]) -> str:
    """A result of `likelihood.bits` as text."""
    pixel = f", {value['per_pixel']:.4f} a pixel" if "per_pixel" in value else ""
    nats = f"{value['nats']:.3f} ± {value['standard_error_nats']:.3f} nats"
    return f"{name} {value['per_example']:.4f} ± {value['standard_error']:.4f} bits ({nats}){pixel}"
