"""Measures by nearest neighbours: the quality of samples, how much of the data they cover, whether they are copies.

    precision  share of the samples in the ball of an example
    recall     share of the examples in the ball of a sample
    density    mean number of examples' balls that contain a sample, over k
    coverage   share of the examples whose ball contains a sample

The ball of a point reaches to its k-th nearest neighbour on its own side (precision and recall: Kynkäänniemi et al.
2019; density and coverage: Naeem et al. 2020). If both distributions are equal, density has the mean 1 and coverage the
mean `expected_coverage`, in any number of dimensions. Precision and recall have no such value. They are 1 for equal
sets.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import blocks, matrices
from diffjax.dtypes import AnyArray
from diffjax.errors import InputError

TIES = 1e-6  # relative: squared distances this near count as equal. Many are for pixels, and features are float32


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


class Copies(NamedTuple):
    """The result of `nearest_training`.

    copies, held_out_copies    shares of the samples, and of held-out examples, that are copies of a training example
    duplicates                 share of the samples that are copies of another sample
    closer                     P(a sample is closer to its nearest training example than a held-out example is to its).
                               It is 1/2 if the model does not copy. `z` is its difference from 1/2 over its deviation
    """

    copies: float
    held_out_copies: float
    duplicates: float
    closer: float
    z: float


def precision_recall(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], k: int = 3) -> PrecisionRecall:
    """Precision and recall of samples a and examples b of the data. If the sides are swapped, so are the two numbers.

    Raises:
        InputError: as `features.matrices`. Also if a side has k examples or fewer.
    """
    samples, examples = _checked(a, b, k)
    theirs, ours = _reach(examples, k), _reach(samples, k)
    precise, recalled = np.zeros(len(samples), bool), np.zeros(len(examples), bool)
    for part, square in blocks(samples, examples):
        precise[part] = (square <= theirs).any(1)
        recalled |= (square <= ours[part, None]).any(0)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], k: int = 5) -> DensityCoverage:
    """Density and coverage of samples a and examples b. Density is above 1 if samples lie in more balls than examples.

    Raises:
        InputError: as `precision_recall`.
    """
    samples, examples = _checked(a, b, k)
    reach = _reach(examples, k)
    held, covered = 0, np.zeros(len(examples), bool)
    for _, square in blocks(samples, examples):
        inside = square <= reach
        held += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(held / (k * len(samples)), float(covered.mean()))


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """Mean coverage of m examples by n samples from one distribution, in closed form (Naeem et al. 2020, lemma 2)."""
    return 1.0 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))


def nearest_training(
    samples: Float[AnyArray, "n *d"], training: Float[AnyArray, "m *d"], held_out: Float[AnyArray, "l *d"]
) -> Copies:
    """Whether samples are copies of training examples.

    A point is a copy if its nearest neighbour is at most a third as far as the second nearest (Yoon et al. 2023). In
    few dimensions this happens by chance, so held-out examples are tested, too. `closer` is the test of Meehan et al.
    (2020), by Mann & Whitney's U. It also detects samples that are too near to training examples without being equal.

    Raises:
        InputError: as `features.matrices`. Also if there are fewer than three samples or training examples.
    """
    samples, training = _checked(samples, training, 2)
    held_out, _ = matrices(held_out, training, least=1)
    ours, theirs = Nearest(samples), Nearest(held_out)
    for side in (ours, theirs):
        side.add(training)
    return copies(ours, theirs)


def copies(ours: "Nearest", theirs: "Nearest") -> Copies:
    """The same for samples and held-out examples whose nearest training examples are known."""
    n, num = len(ours.queries), len(theirs.queries)
    ordered = np.sort(theirs.squares[:, 0])
    below, upto = (np.searchsorted(ordered, ours.squares[:, 0], side) for side in ("left", "right"))
    closer = 1.0 - float((below + upto).mean()) / (2 * num)
    deviation = math.sqrt((n + num + 1) / (12 * n * num))
    among = _two_nearest_others(ours.queries)
    return Copies(_copies(ours.squares), _copies(theirs.squares), _copies(among), closer, (closer - 0.5) / deviation)


class Nearest:
    """The k nearest examples of a stream to each of some queries (n, d).

    squares  (n, k), their squared distances, the nearest first. Infinite while there are fewer
    rows     (n, k), their numbers in the stream
    """

    def __init__(self, queries: Float[np.ndarray, "n d"], k: int = 3):
        self.queries = queries
        self.squares = np.full((len(queries), k), np.inf)
        self.rows = np.full((len(queries), k), -1)
        self._seen = 0

    def add(self, x: Float[np.ndarray, "m d"]) -> None:
        """Adds the next examples of the stream."""
        k = self.rows.shape[1]
        for part, square in blocks(self.queries, x):
            near = np.argpartition(square, min(k, len(x)) - 1, axis=1)[:, :k]
            squares = np.concatenate([self.squares[part], np.take_along_axis(square, near, 1)], 1)
            rows = np.concatenate([self.rows[part], near + self._seen], 1)
            order = np.argsort(squares, axis=1, kind="stable")[:, :k]
            self.squares[part], self.rows[part] = (np.take_along_axis(both, order, 1) for both in (squares, rows))
        self._seen += len(x)


def _two_nearest_others(x: np.ndarray) -> np.ndarray:
    """(n, 2): squared distances of each row from the two nearest other rows."""
    found = np.empty((len(x), 2))
    for part, square in blocks(x, x):
        square[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = np.inf
        found[part] = np.sort(np.partition(square, 1, axis=1)[:, :2], axis=1)
    return found


def _copies(squares: np.ndarray) -> float:
    """The share of the rows whose first squared distance is at most a ninth of the second."""
    return float((9 * squares[:, 0] <= squares[:, 1]).mean())


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """The squared radius of each row's ball, which just contains its k-th nearest other row."""
    reach = np.empty(len(x))
    for part, square in blocks(x, x):
        reach[part] = np.partition(square, k, axis=1)[:, k]  # number 0 is the row itself
    return reach * (1 + TIES)


def _checked(samples: AnyArray, examples: AnyArray, k: int) -> tuple[np.ndarray, np.ndarray]:
    samples, examples = matrices(samples, examples)
    if k < 1 or min(len(samples), len(examples)) <= k:
        raise InputError(
            f"k = {k} neighbours of {len(samples)} samples and {len(examples)} examples: k must be at least 1 and less"
            " than both"
        )
    return samples, examples
