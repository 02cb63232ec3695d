"""A picture of samples of several systems of the same mixture in the plane, with the modes that each covers.

    python -m experiments.results.eight_gaussians PICTURE RUN[=TITLE] [RUN[=TITLE] ...]

PICTURE is a path without suffix. Each run's title gets its number of covered modes, and the share of samples near one.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation.modes import coverage
from diffjax.mesh import here
from diffjax.zoo import Panels, Points
from experiments import pictures
from experiments.opened import open_saved
from experiments.parameters import restore_ema

NUM, SHOWN = 10_000, 2000


def panel(argument: str) -> Points:
    """Samples of a run, under its title."""
    directory, _, title = argument.partition("=")
    run = open_saved(directory)
    modes = np.asarray(run.options.get("modes") or (), float)
    if modes.ndim != 2 or run.model.sample is None:
        raise InputError(f"{directory!r} has no samples or no evaluation.modes to cover")
    params = here(run.mesh, restore_ema(run, None)[1])
    samples = np.asarray(jax.jit(run.model.sample, static_argnums=2)(params, jax.random.key(0), NUM))
    found = coverage(samples, modes, run.options["mode_radius"])
    words = f"{found.covered} of {len(modes)} modes, {100 * found.near:.1f}% near one"
    print(f"{directory}: {words}")
    return Points(f"{title or run.system}\n{words}", samples[:SHOWN])


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        panels = [panel(argument) for argument in sys.argv[2:]]
    except InputError as error:
        sys.exit(f"error: {error}")
    rows = [panels[first : first + 3] for first in range(0, len(panels), 3)]
    pictures.write(Path(sys.argv[1]), Panels(rows, extent=3.0))


if __name__ == "__main__":
    main()
