"""Every system behind one door: `make(config) -> Model(init, loss, bound, sample, ...)`, one file a system."""

from diffjax.zoo.make import make
from diffjax.zoo.model import Arrows, Contours, Curves, Film, Grid, Model, Panels, Paths, Points

__all__ = ["Arrows", "Contours", "Curves", "Film", "Grid", "Model", "Panels", "Paths", "Points", "make"]
