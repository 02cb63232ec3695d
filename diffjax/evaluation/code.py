"""The size of held-out examples as bits that are decoded again, beside the bits that the model's bound promises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffjax.coding import Codec, file
from diffjax.errors import InputError
from diffjax.evaluation.likelihood import evaluate_bound
from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class Code(Measure):
    """Codes `evaluation.coded_examples` held-out examples, decodes them, and compares both.

    codec   params -> Codec, see `diffjax.coding`

    `bits_per_dim` is that of the whole file, its head included. `reported` is minus the model's bound on the same
    examples, and `borrowed` the bits of the random words that the first examples began with, both in bits per
    dimension.
    """

    codec: Callable[[Any], Codec]

    name = "code"
    needs = "codec"
    switch = "coded_examples"
    least: ClassVar[dict[str, int]] = {"coded_examples": 0}

    def measure(self, trained: Trained, report: Report) -> Report:
        num = min(trained.options[self.switch], len(trained.test_set))
        levels = np.asarray(trained.test_set.gather(np.arange(num))["image"])
        codec = self.codec(trained.whole_params())
        stack = codec.encode(levels.astype(np.uint8))
        packed = file.pack(file.Head(num, b"", "npy"), stack.words(), levels)
        _, words, check = file.unpack(packed)
        decoded = codec.decode(file.stack_of(words), num)
        file.check_decoded(decoded, check)
        if not (decoded == levels).all():
            raise InputError("the decoded examples differ from those that were coded")
        size = levels[0].size * num
        found = {
            "bits_per_dim": 8 * len(packed) / size,
            "borrowed": stack.bits_borrowed() / size,
            "overhead": codec.overhead,
            "bytes": len(packed),
            "num_examples": num,
        }
        if trained.model.bound is not None:
            found["reported"] = _reported(trained, num)
        return {self.name: found}

    def lines(self, report: Report) -> Iterator[str]:
        found = report[self.name]
        beside = f", reported {found['reported']:.4f} on them" if "reported" in found else ""
        yield (
            f"coded and decoded: {found['num_examples']} examples in {found['bytes']} bytes,"
            f" {found['bits_per_dim']:.4f} bits/dim{beside}; overhead: {found['overhead']}"
            f" (borrowed {found['borrowed']:.4f})"
        )


def _reported(trained: Trained, num: int) -> float:
    bound = trained.model.bound
    terms = trained.once(("minus the bound", bound), lambda: lambda *given: {"total": -bound(*given)})
    args = trained.params, trained.key, trained.batches(num), trained.test_set.shape
    return float(evaluate_bound(trained.spread(terms), *args)["bits_per_dim"])
