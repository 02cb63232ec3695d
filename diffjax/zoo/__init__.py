"""Every system behind one door: `make(config) -> Model(init, loss, bound, sample, ...)`, one file a system."""

from diffjax.zoo.make import make
from diffjax.zoo.model import Curve, Film, Grid, Model

__all__ = ["Curve", "Film", "Grid", "Model", "make"]
