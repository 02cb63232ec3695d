"""Tables and figures of the beta-binomial model's posteriors, by quadrature."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax.zoo.figures import Contours, Curves, Figure, Panels

LABELS = ("logit m", "log K")
POINTS, NEAR, WIDE = 56, 5.0, 14.0  # of the grids, in units of the scale: of what is drawn, and of log Z
NEAR_AXIS, WIDE_AXIS = np.linspace(-NEAR, NEAR, POINTS), np.linspace(-WIDE, WIDE, 4 * POINTS)


class Report(NamedTuple):
    """The content of figures and table, with a row for each number of leapfrog steps. Nats."""

    log_z: float
    log_p: Float[np.ndarray, "points points"]  # log p(u | y) on the grid
    log_q: Float[np.ndarray, "rows points points"]
    bounds: Float[np.ndarray, "rows draws"]
    r_squared: Float[np.ndarray, " rows"]
    kl: Float[np.ndarray, " rows"]


def compare(log_p: np.ndarray, log_q: np.ndarray) -> tuple[float, float]:
    """Two measures of the difference of q and p, from their values on a regular grid that covers q.

    Returns:
        R² = 1 - Var_q[log p - log q] / Var_q[log p] (Salimans & Knowles 2013), 1 if q ∝ p; and E_q[log q - log p],
        KL(q ‖ p) in nats if both are normalised.
    """
    log_p, log_q = np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)
    weights = np.exp(log_q - log_q.max())

    def variance(values: np.ndarray) -> float:
        return np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)

    excess = log_q - log_p
    return float(1 - variance(excess) / variance(log_p)), float(np.average(excess, weights=weights))


def report_of(parts: Sequence[Array]) -> Report:
    """The report of what `Setting.evaluate` returns."""
    log_p, everywhere, log_q, bounds = (np.asarray(part, np.float64) for part in parts)
    area = (WIDE_AXIS[1] - WIDE_AXIS[0]) ** 2
    log_z = everywhere.max() + np.log(np.exp(everywhere - everywhere.max()).sum() * area)
    r_squared, kl = np.transpose([compare(log_p - log_z, q) for q in log_q])
    return Report(float(log_z), log_p - log_z, log_q, bounds, r_squared, kl)


def table(steps: Sequence[int], found: Report) -> dict[str, dict[str, float]]:
    """In nats. "below log Z" is the sum of "KL", that of the draws, and the loss by the inverse model r."""
    rows = {"exact": {"log Z": found.log_z}}
    for n, bounds, kl, r_squared in zip(steps, found.bounds, found.kl, found.r_squared, strict=True):
        rows[f"{n} leapfrog steps"] = {
            "bound": float(bounds.mean()),
            "standard error": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
            "below log Z": float(found.log_z - bounds.mean()),
            "log mean w": float(found.log_z + np.log(np.exp(bounds - found.log_z).mean())),
            "KL": float(kl),
            "R2": float(r_squared),
        }
    return rows


def figures(steps: Sequence[int], axes: tuple[np.ndarray, np.ndarray], found: Report) -> dict[str, Figure]:
    """Densities on the near grid, and the bound and R² against the number of leapfrog steps."""
    x, y = axes

    def panel(title: str, log_density: np.ndarray) -> Contours:
        return Contours(title, x, y, np.exp(log_density))

    panels = [panel("exact", found.log_p)]
    for n, log_q, bounds, r_squared in zip(steps, found.log_q, found.bounds, found.r_squared, strict=True):
        panels.append(panel(f"L = {n}, {bounds.mean() - found.log_z:.3f} nats, R² {r_squared:.3f}", log_q))
    columns = -(-len(panels) // 2)
    means, at = found.bounds.mean(1), np.array(steps)
    lines = {"bound": (at, means), "log Z": (at, np.full(len(at), found.log_z))}
    return {
        "posterior": Panels([panels[:columns], panels[columns:]], LABELS),
        "bound": Curves(lines, "leapfrog steps", "nats"),
        "r_squared": Curves({"R²": (at, found.r_squared)}, "leapfrog steps", "R²"),
    }
