"""A picture of the filters of a run of configs/ebm_patches.py, each as the pattern of pixels that it looks for.

    python -m experiments.results.filters PICTURE RUN

PICTURE is a path without suffix. Strong filters come first.
"""

import sys
from pathlib import Path

import numpy as np

from diffjax.data import mixed
from diffjax.mesh import here
from diffjax.zoo import Grid
from diffjax.zoo.energy import hyvarinen
from experiments import pictures
from experiments.opened import open_saved
from experiments.parameters import restore_ema


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    run = open_saved(sys.argv[2])
    if run.saved["net"]["name"] != "filters" or "side" not in run.saved["data"]:
        sys.exit(f"error: {sys.argv[2]!r} is no run of filters of patches: give one of configs/ebm_patches.py")
    params = here(run.mesh, restore_ema(run, None)[1])["network"]
    order = np.argsort(-np.asarray(params["log_scale"]))
    patterns = mixed.filters(np.asarray(hyvarinen.directions(params))[order], run.saved["data"]["side"])
    images = patterns / np.abs(patterns).max((1, 2), keepdims=True)
    pictures.write(Path(sys.argv[1]), Grid(images[..., None], 15))


if __name__ == "__main__":
    main()
