"""From one distribution to another: paths between paired points, and flows and diffusions along them.

linear     straight lines between the points, with or without noise
couplings  the pairs of a batch: independent, optimal, entropic
bridges    Schrödinger bridge matching
reflow     the straightness of a flow, and pairs that make it straighter
mixtures   closed forms for two mixtures of Gaussians
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
