"""The n-gram model of the training examples, as a baseline: counts of classes after their last n - 1 classes.

    p_n(x | c) = (N(c x) + U(c) p_{n-1}(x | c'))/(N(c) + U(c)),  p_0 = 1/K                (Witten and Bell 1991)

N counts, U(c) is the number of different classes seen after c, and c' is c without its earliest class. An array is
read in C order. The counts of each column of its last two axes are apart: the voices of a chorale, the columns of an
image. Contexts do not reach beyond the array.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffjax.evaluation.measure import Measure, Report, Trained


@dataclass(frozen=True)
class NGram(Measure):
    """Bits per dimension of the test examples under n-grams of the training examples, n = 1 .. `evaluation.ngram`.

    num_classes  K
    classes      examples -> the same as integers 0 .. K - 1
    """

    num_classes: int
    classes: Callable[[Any], np.ndarray]

    name = "n-gram"
    needs = "classes"
    switch = "ngram"
    least: ClassVar[dict[str, int]] = {"ngram": 0}

    def measure(self, trained: Trained, report: Report) -> Report:
        train = trained.train_set()
        fitted = fit(self.classes(train.gather(np.arange(len(train)))["image"]), trained.options["ngram"])
        test = trained.test_set
        num = min(trained.options["num_examples"] or len(test), len(test))
        x = self.classes(test.gather(np.arange(num))["image"])
        found = {}
        for n in range(1, trained.options["ngram"] + 1):
            bits = -log_prob(fitted, x, n, self.num_classes) / (x[0].size * math.log(2))
            error = float(bits.std(ddof=1) / len(bits) ** 0.5) if len(bits) > 1 else 0.0
            found[str(n)] = {"bits_per_dim": float(bits.mean()), "standard_error": error}
        return {"ngram": found}

    def lines(self, report: Report) -> Iterator[str]:
        each = [f"{n}: {r['bits_per_dim']:.4f} ± {r['standard_error']:.4f}" for n, r in report["ngram"].items()]
        yield f"bits/dim of n-grams of the training examples, n = {', '.join(each)}"


def fit(x: np.ndarray, n: int) -> dict[tuple[int, ...], dict[int, int]]:
    """Counts {(column, *context): {class: count}} of contexts of 0 .. n - 1 classes, of arrays (num, *shape)."""
    counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    columns = _columns(x.shape[1:])
    for row in x.reshape(len(x), -1).tolist():
        for i, now in enumerate(row):
            for length in range(min(n - 1, i) + 1):
                counts[(columns[i], *row[i - length : i])][now] += 1
    return counts


def log_prob(counts: dict[tuple[int, ...], dict[int, int]], x: np.ndarray, n: int, num_classes: int) -> np.ndarray:
    """log p(x) in nats, (num,)."""
    columns, found = _columns(x.shape[1:]), []
    for row in x.reshape(len(x), -1).tolist():
        total = 0.0
        for i, now in enumerate(row):
            p = 1.0 / num_classes
            for length in range(min(n - 1, i) + 1):
                seen = counts.get((columns[i], *row[i - length : i]))
                if seen:
                    p = (seen.get(now, 0) + len(seen) * p) / (sum(seen.values()) + len(seen))
            total += math.log(p)
        found.append(total)
    return np.array(found)


def _columns(shape: tuple[int, ...]) -> list[int]:
    size = math.prod(shape[1:])
    return [i % size for i in range(math.prod(shape))]
