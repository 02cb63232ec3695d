"""Pictures and measures of a flow from a source to data: paths, films, straightness, few steps."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import samplers
from diffjax.distances import energy_distance
from diffjax.interpolants import reflow
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.zoo.figures import Figure, Film, Grid, Panels, Paths, Points

STEPS = 100  # of Heun's rule, for measures of the flow itself
FEW = (1, 2, 10)  # of Euler's rule
BINS = 64  # to a side, of a film of points


def of_plane(process: Gaussian, predict: Predict, x1: Array, x0: Array) -> dict[str, Figure]:
    """Paths of points of the plane, and a film of their density. x1 (n, 2) are of the source, x0 (n, 2) are data."""
    path = frames(process, predict, x1, STEPS)
    paths = Paths("paths of the flow", path[:, :100].swapaxes(0, 1))
    points = [Points("source", x1), Points("end of the flow", path[-1]), Points("data", x0)]
    return {"flow_paths": Panels([[paths, *points]]), "flow": Film(densities(path[::2]))}


def of_images(process: Gaussian, predict: Predict, x1: Array, x0: Array) -> dict[str, Figure]:
    """Rows: the source x1 (n, H, W, C), eight moments of its path, its end, and the example x0 of the same pair."""
    path = frames(process, predict, x1, 50)
    some = jnp.linspace(0, 50, 10).round().astype(int)
    rows = jnp.concatenate([path[some, :8], x0[None, :8]]).swapaxes(0, 1)
    return {"flow_sequence": Grid(rows.reshape(-1, *x0.shape[1:]), rows.shape[1]), "flow": Film(path)}


def numbers(
    process: Gaussian, predict: Predict, x1: Array, x0: Array, *, in_pairs: bool = False
) -> dict[str, dict[str, float]]:
    """Straightness, and energy distances between data x0 (n, dim) and the ends of the flow, and of few Euler steps.

    The energy distance compares independent draws. With `in_pairs` each x0 belongs to its x1, so it is not computed.
    """

    @jax.jit
    def run(x1: Array) -> tuple[Array, list[Array]]:
        path = reflow.flow_path(process, predict, x1, STEPS)
        steps = () if in_pairs else FEW
        few = [reflow.flow_ends(process, predict, x1, num, samplers.euler(process)) for num in steps]
        return reflow.straightness_of(path), [path[-1], *few]

    straightness, ends = run(x1)
    error = jnp.std(straightness, ddof=1) / jnp.sqrt(len(x1))
    table = {"straightness": {"mean": float(straightness.mean()), "standard error": float(error)}}
    if in_pairs:
        return table
    names = ["flow", *(f"Euler, {num} steps" for num in FEW)]
    distances = {
        name: float(energy_distance(np.asarray(x), np.asarray(x0))) for name, x in zip(names, ends, strict=True)
    }
    return table | {"energy distance": distances}


def frames(process: Gaussian, predict: Predict, x1: Array, num_steps: int) -> Array:
    """(num_steps + 1, batch, *event), the path of the points x1 to data."""
    return jax.jit(lambda x1: reflow.flow_path(process, predict, x1, num_steps))(x1)


def densities(path: Array) -> np.ndarray:
    """Points (frames, n, 2) as pictures (frames, 1, BINS, BINS, 1) of how many fall on a pixel, in [-1, 1]."""
    points = np.asarray(path)
    edges = np.linspace(-1.05, 1.05, BINS + 1) * np.abs(points).max()
    counts = np.stack([np.histogram2d(x[:, 1], x[:, 0], bins=edges)[0][::-1] for x in points])
    # The root of a count has the same error everywhere. A few crowded pixels may be saturated.
    bright = np.sqrt(counts / max(np.quantile(counts[counts > 0], 0.98), 1.0)).clip(max=1.0)
    return (2.0 * bright - 1.0).astype(np.float32)[:, None, :, :, None]
