"""Distances between distributions by a kernel k: the squared maximum mean discrepancy (Gretton et al. 2012)

    MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y),   x, x' from one and y, y' from the other, all independent

    kernel_distance             k = (x·y / d + 1)³: the kernel (Inception) distance, KID        (Bińkowski et al. 2018)
    maximum_mean_discrepancy    k = the mean of exp(-‖x - y‖² / 2h²) over some bandwidths h
    energy_distance             k = -‖x - y‖                                                     (Székely & Rizzo 2013)

Each is estimated by the U-statistic over all pairs of different examples. It is unbiased. So it is below 0 about half
of the time if the distributions are equal. The standard error is the jackknife's: each example of each side is left out
in turn. If the distributions are equal it is too large, by up to √2, because the first-order variance is then 0.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from diffjax.distances.features import BLOCK, Estimate, blocks, matrices
from diffjax.dtypes import AnyArray

Rows = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def kernel_distance(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"]) -> Estimate:
    """MMD² with k = (x·y / d + 1)³, unbiased. d is the number of features. It takes time (n + m)².

    Raises:
        InputError: as `features.matrices`.
    """
    a, b = matrices(a, b)

    def sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = max(1, BLOCK // len(y))
        parts = [(x[i : i + rows] @ y.T / x.shape[1] + 1) ** 3 for i in range(0, len(x), rows)]
        return np.concatenate([part.sum(1) for part in parts]), np.sum([part.sum(0) for part in parts], 0)

    return _u_statistic(sums, lambda x: ((x**2).sum(1) / x.shape[1] + 1) ** 3, a, b)


def energy_distance(a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"]) -> Estimate:
    """2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖, unbiased, in units of the features. Its mean is 0 only for equal laws.

    Raises:
        InputError: as `features.matrices`.
    """
    return _u_statistic(_sums(lambda square: -np.sqrt(square)), lambda x: np.zeros(len(x)), *matrices(a, b))


def maximum_mean_discrepancy(
    a: Float[AnyArray, "n *d"], b: Float[AnyArray, "m *d"], bandwidths: Float[AnyArray, " k"] | None = None
) -> Estimate:
    """MMD² with the mean of Gaussian kernels, unbiased.

    Args:
        bandwidths: h, in units of the features. The default is the median distance between the first thousand examples
            of b, times 1/4, 1/2, 1, 2 and 4.

    Raises:
        InputError: as `features.matrices`.
    """
    a, b = matrices(a, b)
    h = median_distance(b) * 2.0 ** np.arange(-2, 3) if bandwidths is None else np.asarray(bandwidths, np.float64)

    def kernel(square: np.ndarray) -> np.ndarray:
        return np.mean([np.exp(square * (-0.5 / one**2)) for one in h], 0)

    return _u_statistic(_sums(kernel), lambda x: np.ones(len(x)), a, b)


def median_distance(x: Float[np.ndarray, "n d"], most: int = 1000) -> float:
    """The median of ‖x_i - x_j‖ over the pairs of the first `most` examples. If it is 0, the result is 1."""
    x = x[:most]
    squares = np.concatenate([square for _, square in blocks(x, x)])
    return float(np.median(np.sqrt(squares[np.triu_indices(len(x), 1)]))) or 1.0


def _sums(kernel: Callable[[np.ndarray], np.ndarray]) -> Rows:
    """(x, y) -> Σ_j k(x_i, y_j) and Σ_i k(x_i, y_j), for a kernel of the squared distance."""

    def sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_row, by_column = np.empty(len(x)), np.zeros(len(y))
        for part, square in blocks(x, y):
            values = kernel(square)
            by_row[part] = values.sum(1)
            by_column += values.sum(0)
        return by_row, by_column

    return sums


def _u_statistic(sums: Rows, own: Callable[[np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray) -> Estimate:
    """MMD² from sums of the kernel. own(x) is k(x_i, x_i).

    To leave out one example, its row is subtracted from the sum over pairs, and the number of pairs is reduced.
    """
    n, m = len(a), len(b)
    aa, bb = sums(a, a)[0] - own(a), sums(b, b)[0] - own(b)
    ab, ba = sums(a, b)
    value = aa.sum() / (n * (n - 1)) + bb.sum() / (m * (m - 1)) - 2 * ab.sum() / (n * m)
    variance = 0.0
    for within, across, num, others in ((aa, ab, n, m), (bb, ba, m, n)):
        if num < 3:
            return Estimate(float(value), float("nan"))
        left = (within.sum() - 2 * within) / ((num - 1) * (num - 2))
        left -= 2 * (across.sum() - across) / ((num - 1) * others)
        variance += (num - 1) * left.var()
    return Estimate(float(value), float(np.sqrt(variance)))
