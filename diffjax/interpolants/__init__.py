"""From one distribution to another: paths between paired points, and flows and diffusions along them.

linear     straight lines between the points, with or without noise on the way
couplings  which points of a batch are pairs: independent, optimal, entropic
bridges    Schrödinger bridge matching
reflow     how straight a flow is, and the pairs that make it straighter
mixtures   interpolants between two mixtures of Gaussians in closed form
"""

from diffjax.interpolants import bridges, couplings, mixtures, reflow
from diffjax.interpolants.linear import PROCESS, Interpolant, interpolant, noise_loss, stochastic, velocity_loss

__all__ = [
    "PROCESS",
    "Interpolant",
    "bridges",
    "couplings",
    "interpolant",
    "mixtures",
    "noise_loss",
    "reflow",
    "stochastic",
    "velocity_loss",
]
