"""All systems with one interface: `make(config) -> Model(init, loss, bound, sample, ...)`. Families are subpackages."""

from diffjax.zoo.figures import Arrows, Contours, Curves, Figures, Film, Grid, Panels, Paths, Points
from diffjax.zoo.make import make
from diffjax.zoo.model import Examples, Model

__all__ = [
    "Arrows",
    "Contours",
    "Curves",
    "Examples",
    "Figures",
    "Film",
    "Grid",
    "Model",
    "Panels",
    "Paths",
    "Points",
    "make",
]
