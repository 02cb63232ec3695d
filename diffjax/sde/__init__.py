"""Diffusions as stochastic differential equations: what they are, how to run them backwards, and exact likelihood."""

from diffjax.sde.equations import (
    LIKELIHOOD_FROM,
    TRAIN_FROM,
    diffusion,
    drift,
    drift_rate,
    sample_from,
    score,
    squared_diffusion,
    times,
    velocity,
)

__all__ = [
    "LIKELIHOOD_FROM",
    "TRAIN_FROM",
    "diffusion",
    "drift",
    "drift_rate",
    "sample_from",
    "score",
    "squared_diffusion",
    "times",
    "velocity",
]
