"""A picture of the paths of several flows in the plane, and a film of each, to compare curved and straight paths.

    python -m experiments.results.straight_paths PICTURE RUN[,RUN...] [RUN[,RUN...] ...]

PICTURE is a path without suffix. Every further argument is a row of the picture: workdirs of runs of flow_matching or
reflow on data in the plane. All paths of a row start at the same points. Each title has the flow's straightness S.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.interpolants import reflow
from diffjax.mesh import here
from diffjax.zoo import Film, Panels, Paths, Points
from diffjax.zoo.diffusion import flow_pictures
from experiments import pictures
from experiments.opened import Run, open_saved
from experiments.parameters import restore_ema

SHOWN, NUM = 60, 4000  # paths, points of a film


def title(run: Run) -> str:
    """The title of a run's panel."""
    matching = run.saved["matching"]
    if run.system == "reflow":
        return "reflow"
    if matching["schedule"] != "straight":
        return f"diffusion ({matching['schedule']})"
    coupling = matching.get("coupling", "independent")
    return "flow matching" if coupling == "independent" else f"flow matching, {coupling}"


def panel(directory: str) -> tuple[list[Paths | Points], np.ndarray]:
    """The paths, drawn over the flow's end points, and the frames of its film."""
    run = open_saved(directory)
    if run.system not in ("flow_matching", "reflow") or run.test_set().shape != (2,):
        raise InputError(f"{directory!r} is no run of flow_matching or reflow on data of the plane")
    process, predict = run.model.kernels(here(run.mesh, restore_ema(run, None)[1]))
    x1 = jax.random.normal(jax.random.key(0), (NUM, 2))
    if run.saved["matching"].get("source") == "data":
        x1 = jnp.asarray(run.test_set().gather(np.arange(min(NUM, len(run.test_set()))))["source"])
    path = flow_pictures.frames(process, predict, x1, flow_pictures.STEPS)
    mean = float(jax.jit(lambda x: reflow.straightness(process, predict, x))(x1).mean())
    print(f"{directory}: {title(run)}, straightness {mean:.4f}")
    marks = [Points(f"{title(run)}, S = {mean:.3f}", path[-1][:1000]), Paths("", path[:, :SHOWN].swapaxes(0, 1))]
    return marks, flow_pictures.densities(path[::4])


def side_by_side(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Films (frames, 1, H, W, 1) side by side in one film. Each pixel becomes two by two."""
    wide, blank = max(map(len, rows)), np.full_like(rows[0][0], -1)
    lines = [np.concatenate(row + (wide - len(row)) * [blank], axis=3) for row in rows]
    return np.concatenate(lines, axis=2).repeat(2, 2).repeat(2, 3)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        name, rows = Path(sys.argv[1]), [[panel(run) for run in row.split(",")] for row in sys.argv[2:]]
    except InputError as error:
        sys.exit(f"error: {error}")
    pictures.write(name, Panels([[marks for marks, _ in row] for row in rows], extent=3.5))
    pictures.write(name, Film(side_by_side([[frames for _, frames in row] for row in rows])))


if __name__ == "__main__":
    main()
