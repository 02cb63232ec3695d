"""Normalizing flows: invertible maps with log-determinants, and the densities that they define."""

from diffjax.flows.autoregressive import autoregressive
from diffjax.flows.continuous import Integration, Path, Velocity, carry, continuous
from diffjax.flows.coupling import additive_coupling, affine_coupling, checkerboard, halves
from diffjax.flows.elementary import Form, affine, bounded, gated, logit, reverse
from diffjax.flows.flow import Base, Flow, Transformed, chain, invert, stacked
from diffjax.flows.planar import planar
from diffjax.flows.radial import radial

__all__ = [
    "Base",
    "Flow",
    "Form",
    "Integration",
    "Path",
    "Transformed",
    "Velocity",
    "additive_coupling",
    "affine",
    "affine_coupling",
    "autoregressive",
    "bounded",
    "carry",
    "chain",
    "checkerboard",
    "continuous",
    "gated",
    "halves",
    "invert",
    "logit",
    "planar",
    "radial",
    "reverse",
    "stacked",
]
