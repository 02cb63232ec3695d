"""Training losses, per example and unreduced: of diffusion models, and score matching."""

from diffjax.losses.chains import LOSSES, chain_loss
from diffjax.losses.diffusion import Weight, draw, hybrid, min_snr, p2, simple, vlb, weighted
from diffjax.losses.score_matching import (
    Projection,
    Score,
    denoising_score_matching,
    energy_score,
    exact_score_matching,
    sliced_score_matching,
    weighted_score_matching,
)

__all__ = [
    "LOSSES",
    "Projection",
    "Score",
    "Weight",
    "chain_loss",
    "denoising_score_matching",
    "draw",
    "energy_score",
    "exact_score_matching",
    "hybrid",
    "min_snr",
    "p2",
    "simple",
    "sliced_score_matching",
    "vlb",
    "weighted",
    "weighted_score_matching",
]
