"""What nearest neighbours say of samples: how good they are, how much of the data they reach, whether they are copies.

    precision  part of the samples within some example's ball      recall    part of the examples within some sample's
    density    balls of examples that hold a sample, over k         coverage  part of the examples whose ball holds one

The ball of a point reaches to its k-th nearest neighbour on its own side (precision and recall: Kynkäänniemi et al.
2019; density and coverage: Naeem et al. 2020). Of equal laws density has the mean 1 and coverage the mean
`expected_coverage`, in any number of dimensions; precision and recall have no such value, they are 1 for equal sets.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import blocks, matrices
from diffjax.dtypes import AnyArray
from diffjax.errors import InputError


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


class Copies(NamedTuple):
    """What `nearest_training` finds.

    copies, held_out_copies    parts of the samples, and of held-out examples, that are copies of a training example
    duplicates                 part of the samples that are copies of another sample
    closer                     P(a sample is closer to its nearest training example than a held-out example is to its),
                               1/2 if the model has not copied; in units of its deviation from 1/2 then, `z`
    """

    copies: float
    held_out_copies: float
    duplicates: float
    closer: float
    z: float


def precision_recall(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], k: int = 3) -> PrecisionRecall:
    """Of samples a and examples b of the data. With the sides exchanged, each takes the other's place.

    Raises:
        InputError: as `features.matrices`; and if a side has not more than k examples.
    """
    samples, examples = _checked(a, b, k)
    theirs, ours = _reach(examples, k), _reach(samples, k)
    precise, recalled = np.zeros(len(samples), bool), np.zeros(len(examples), bool)
    for part, square in blocks(samples, examples):
        precise[part] = (square <= theirs).any(1)
        recalled |= (square <= ours[part, None]).any(0)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], k: int = 5) -> DensityCoverage:
    """Of samples a and examples b. Density is above 1 where samples lie in more balls than examples do.

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
    """The mean coverage of m examples by n samples of the same law, in closed form (Naeem et al. 2020, lemma 2)."""
    return 1.0 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))


def nearest_training(
    samples: Float[AnyArray, "n *d"], training: Float[AnyArray, "m *d"], held_out: Float[AnyArray, "l *d"]
) -> Copies:
    """Whether samples are training examples come back.

    A point is a copy if its nearest neighbour is at most a third as far as the second nearest (Yoon et al. 2023); by
    chance that happens in few dimensions, which is why held-out examples are asked too. `closer` is the test of
    Meehan et al. (2020), by Mann & Whitney's U: it sees samples that are near to training examples, not equal to them.

    Raises:
        InputError: as `features.matrices`; and if there are fewer than three samples or training examples.
    """
    samples, training = _checked(samples, training, 2)
    held_out, _ = matrices(held_out, training, least=1)
    ours, theirs = two_nearest(samples, training), two_nearest(held_out, training)
    n, num = len(ours), len(theirs)
    ordered = np.sort(theirs[:, 0])
    below, upto = (np.searchsorted(ordered, ours[:, 0], side) for side in ("left", "right"))
    closer = 1.0 - float((below + upto).mean()) / (2 * num)
    deviation = math.sqrt((n + num + 1) / (12 * n * num))
    among = two_nearest(samples, samples, itself=True)
    return Copies(_copies(ours), _copies(theirs), _copies(among), closer, (closer - 0.5) / deviation)


def two_nearest(a: np.ndarray, b: np.ndarray, itself: bool = False) -> np.ndarray:
    """(n, 2): squared distances of the rows of a from the two nearest of b, without themselves if `itself`: a is b."""
    found = np.empty((len(a), 2))
    for part, square in blocks(a, b):
        if itself:
            square[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = np.inf
        found[part] = np.sort(np.partition(square, 1, axis=1)[:, :2], axis=1)
    return found


def nearest(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], k: int) -> np.ndarray:
    """(n, k): the rows of b that are nearest to each row of a, the nearest first."""
    return np.concatenate([np.argsort(square, axis=1, kind="stable")[:, :k] for _, square in blocks(a, b)])


def _copies(two: np.ndarray) -> float:
    """Part of the rows whose first squared distance is at most a ninth of the second."""
    return float((9 * two[:, 0] <= two[:, 1]).mean())


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each row from its k-th nearest other row."""
    reach = np.empty(len(x))
    for part, square in blocks(x, x):
        reach[part] = np.partition(square, k, axis=1)[:, k]  # the 0-th is the row itself
    return reach


def _checked(samples: AnyArray, examples: AnyArray, k: int) -> tuple[np.ndarray, np.ndarray]:
    samples, examples = matrices(samples, examples)
    if k < 1 or min(len(samples), len(examples)) <= k:
        raise InputError(
            f"k = {k} neighbours of {len(samples)} samples and {len(examples)} examples: k must be at least 1 and less"
            " than both"
        )
    return samples, examples
