"""Which modes of a mixture samples cover: the measure of a generator that makes only some of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation.measure import Measure, Report, Trained

if TYPE_CHECKING:
    from diffjax.data import Dataset

COVERED = 0.1  # a mode is covered if it has a tenth of an equal share of all samples


class Coverage(NamedTuple):
    """covered: modes with at least a tenth of an equal share of the samples near them.
    near: the share of samples within the radius of a mode. shares: of the samples, those near each mode (K,)."""

    covered: int
    near: float
    shares: np.ndarray


def coverage(samples: np.ndarray, modes: np.ndarray, radius: float) -> Coverage:
    """Of samples (n, d) and modes (K, d). A sample belongs to the nearest mode, if that is within the radius."""
    distances = np.linalg.norm(samples[:, None] - modes, axis=-1)
    nearest, inside = distances.argmin(1), distances.min(1) <= radius
    shares = np.bincount(nearest[inside], minlength=len(modes)) / len(samples)
    return Coverage(int((shares >= COVERED / len(modes)).sum()), float(inside.mean()), shares)


@dataclass(frozen=True)
class Modes(Measure):
    """The modes that samples cover, and the share of samples that are near one (Metz et al. 2017, section 3.3.1).

    evaluation.modes        the modes, K points of the data's space; () measures nothing
    evaluation.mode_radius  what counts as near, in the data's units. Of a Gaussian of deviation s in the plane, the
                            radius 3 s has 98.9% of the mass
    evaluation.mode_samples samples to draw
    """

    name = "modes"
    needs = "samples"
    switch = "modes"
    least: ClassVar[dict[str, int]] = {"mode_samples": 1}
    of_samples = True

    def check(self, system: str, options: Mapping[str, Any], train_set: "Dataset", test_set: "Dataset") -> None:
        modes = np.asarray(options["modes"], float)
        if modes.ndim != 2 or modes.shape[1:] != tuple(test_set.shape):
            raise InputError(
                f"evaluation.modes has shape {modes.shape}: give K points of the data's shape {tuple(test_set.shape)},"
                " or () for none"
            )
        radius = options["mode_radius"]
        if not (isinstance(radius, int | float) and 0 < radius < math.inf):
            raise InputError(f"evaluation.mode_radius = {radius!r} must be a positive number")

    def measure(self, trained: Trained, report: Report) -> Report:
        options = trained.options
        samples = trained.samples(options["mode_samples"])
        found = coverage(samples, np.asarray(options["modes"], float), options["mode_radius"])
        error = math.sqrt(found.near * (1 - found.near) / len(samples))
        return {
            "modes": {
                "covered": found.covered,
                "of": len(found.shares),
                "near": found.near,
                "standard_error": error,
                "shares": found.shares.tolist(),
                "num_samples": len(samples),
            }
        }

    def lines(self, report: Report) -> Iterator[str]:
        found = report["modes"]
        near = f"{100 * found['near']:.2f} ± {100 * found['standard_error']:.2f}%"
        yield f"modes: {found['covered']} of {found['of']} covered; {near} of {found['num_samples']} samples near one"

    def curves(self, report: Report) -> dict[str, float]:
        return {"modes_covered": float(report["modes"]["covered"]), "near_modes": report["modes"]["near"]}
