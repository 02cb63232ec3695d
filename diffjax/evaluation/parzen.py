"""The Parzen-window log-likelihood of samples (Breuleux et al. 2011; Goodfellow et al. 2014).

    log p(x) = log (1/n) Σ_i N(x; s_i, h² I),  h chosen on a validation set

It estimates, from below, the density of samples plus noise. In many dimensions this is far from the model's own
density. It grows with n. So compare models only with equal numbers of samples, and only roughly (Theis et al. 2016).

Squared distances come from one matrix product per block. It is in float64, because ‖x‖² - 2xs + ‖s‖² cancels where x is
near s. On CPU that takes a third longer than float32.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from diffjax.distributions import LOG_2PI
from diffjax.dtypes import AnyArray
from diffjax.errors import InputError
from diffjax.evaluation.measure import Measure, Trained

BANDWIDTHS = np.geomspace(0.05, 1.0, 20)  # for pixels in [0, 1]; choose_bandwidth goes beyond it if necessary
REACH = 1e4  # how far beyond, as a factor
BLOCK = 2**22  # distances at a time, 32 MB per array


class Report(TypedDict):
    """log_likelihood and standard_error in nats per example; bits and standard_error_bits are the same in bits."""

    log_likelihood: float
    standard_error: float
    bits: float
    standard_error_bits: float
    bandwidth: float
    num_samples: int


def log_prob(samples: Float[AnyArray, "n dim"], x: Float[AnyArray, "num dim"], bandwidth: float) -> np.ndarray:
    """log p of each row of x, (num,) float64, in nats.

    Raises:
        InputError: if samples and x are not finite matrices with rows of one length, or bandwidth is not positive.
    """
    return _log_prob(*_checked(samples, x), np.array([bandwidth], np.float64))[0]


def choose_bandwidth(
    samples: Float[AnyArray, "n dim"],
    validation: Float[AnyArray, "num dim"],
    bandwidths: Float[AnyArray, " grid"] = BANDWIDTHS,
) -> float:
    """The bandwidth with the greatest mean log p of the validation set, from a grid of at least three.

    While the best is at an end of the grid, a grid of the same ratios continues beyond that end.

    Raises:
        InputError: as `log_prob`; and if the best is more than a factor of 10^4 beyond the grid. If all examples of the
            validation set are among the samples, there is no best: log p then grows as the bandwidth falls.
    """
    samples, validation = _checked(samples, validation)
    grid = np.unique(np.asarray(bandwidths, np.float64))
    if grid.size < 3:
        raise InputError(f"bandwidths has {grid.size} different values; give at least 3, so that one can be inside")
    lowest, highest = grid[0] / REACH, grid[-1] * REACH
    while grid[-1] > lowest and grid[0] < highest:
        best = int(_log_prob(samples, validation, grid).mean(1).argmax())
        if 0 < best < grid.size - 1:
            return float(grid[best])
        # The neighbour of the end becomes the other end of the new grid, so the end itself becomes an inner point.
        grid = grid * (grid[1] / grid[-1] if best == 0 else grid[-2] / grid[0])
    raise InputError(
        f"bandwidths: the best is not in {lowest:.3g} .. {highest:.3g}; give a grid near it, or samples that are not "
        "copies of the validation set"
    )


def report(
    samples: Float[AnyArray, "n dim"],
    validation: Float[AnyArray, "num dim"],
    test: Float[AnyArray, "num_test dim"],
    bandwidths: Float[AnyArray, " grid"] = BANDWIDTHS,
) -> Report:
    """The mean log p of the test set with the bandwidth best for the validation set, and its standard error s/√num.

    If there is no such bandwidth, or a number is not finite, results are NaN and a warning is logged. So one failure
    does not lose a report of many measures. For one example, the standard error is NaN.

    Raises:
        InputError: if samples, validation or test are not matrices with rows of one length.
    """
    for x in (validation, test):
        _matrices(samples, x)
    try:
        bandwidth = choose_bandwidth(samples, validation, bandwidths)
        values = log_prob(samples, test, bandwidth)
    except InputError as reason:
        logging.getLogger(__name__).warning("The Parzen window is not measured: %s", reason)
        bandwidth, values = math.nan, np.array([math.nan])
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Report(
        log_likelihood=mean,
        standard_error=error,
        bits=mean / math.log(2),
        standard_error_bits=error / math.log(2),
        bandwidth=bandwidth,
        num_samples=len(np.asarray(samples)),
    )


def _log_prob(samples: np.ndarray, x: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
    """log p, (bandwidths, num), in nats. Every block of distances is used for all bandwidths."""
    if not (np.isfinite(bandwidths) & (bandwidths > 0)).all():
        raise InputError(f"bandwidth must be a positive number, not {bandwidths.min()}")
    centre = samples.mean(0)  # centring does not change distances, and makes the squares smaller
    samples, x = samples - centre, x - centre
    norms = (samples**2).sum(1)
    n, dim = samples.shape
    rows = max(1, BLOCK // n)
    out = np.empty((len(bandwidths), len(x)))
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        square = block @ samples.T
        square *= -2
        square += norms
        square += (block**2).sum(1)[:, None]
        nearest = np.maximum(square.min(1), 0.0)  # below 0 by rounding only
        square -= nearest[:, None]
        for i, h in enumerate(bandwidths):
            exponents = square * (-0.5 / h**2)
            np.exp(exponents, out=exponents)
            log_sum = np.log(exponents.sum(1)) - 0.5 * nearest / h**2
            out[i, start : start + rows] = log_sum - math.log(n) - dim * (0.5 * LOG_2PI + math.log(h))
    return out


def _matrices(samples: ArrayLike, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    samples, x = np.asarray(samples, np.float64), np.asarray(x, np.float64)
    for name, value in (("samples", samples), ("x", x)):
        if value.ndim != 2 or value.size == 0:
            raise InputError(f"{name} has shape {value.shape}; give a matrix with one flattened example per row")
    if samples.shape[1] != x.shape[1]:
        raise InputError(f"samples have {samples.shape[1]} dimensions and x has {x.shape[1]}; they must be the same")
    return samples, x


_report = report  # the methods of a measure have an argument `report`


@dataclass(frozen=True)
class Parzen(Measure):
    """The score of `evaluation.parzen_samples` samples in [0, 1]. The first tenth of the test set gives the bandwidth.

    The score of as many training examples is also computed. It shows what samples as good as the data would reach.
    """

    name = "parzen"
    needs = "samples"
    switch = "parzen_samples"
    least: ClassVar[dict[str, int]] = {"parzen_samples": 0}
    of_samples = True

    def check(self, system: str, options: Mapping[str, Any], train_set: Any, test_set: Any) -> None:
        if test_set.levels < 2:
            num = options["parzen_samples"]
            raise InputError(
                f"evaluation.parzen_samples={num} needs data of levels, and these are real numbers: set it to 0"
            )

    def measure(self, trained: Trained, report: dict[str, Any]) -> dict[str, Any]:
        test_set, num = trained.test_set, trained.options["parzen_samples"]
        self.check(trained.system, trained.options, None, test_set)
        samples = 0.5 * (trained.samples(num).reshape(num, -1) + 1)

        def pixels(dataset: Any, first: int, last: int) -> np.ndarray:
            images = dataset.gather(np.arange(first, last))["image"]
            return images.reshape(last - first, -1) / (dataset.levels - 1)

        tenth = max(len(test_set) // 10, 1)
        held_out = pixels(test_set, 0, tenth), pixels(test_set, tenth, len(test_set))
        train_set = trained.train_set()
        real = pixels(train_set, 0, min(num, len(train_set)))
        return {"parzen": {"samples": _report(samples, *held_out), "training examples": _report(real, *held_out)}}

    def lines(self, report: dict[str, Any]) -> Iterator[str]:
        for name, score in report["parzen"].items():
            error = f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats"
            yield f"Parzen window of {score['num_samples']} {name}: {error} ({score['bits']:.1f} bits)"


def _checked(samples: ArrayLike, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    samples, x = _matrices(samples, x)
    for name, value in (("samples", samples), ("x", x)):
        if not np.isfinite(value).all():
            bad = int((~np.isfinite(value).all(1)).sum())
            raise InputError(f"{name} has NaN or infinity in {bad} of {len(value)} rows; leave these out")
    return samples, x
