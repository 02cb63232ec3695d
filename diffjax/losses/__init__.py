"""Training losses, per example and unreduced: of diffusion models, and score matching."""

from diffjax.losses.chains import DEFAULTS, LOSSES, chain_loss
from diffjax.losses.diffusion import draw, flow_matching, hybrid, learned_uncertainty, simple, vlb, weighted
from diffjax.losses.score_matching import (
    Projection,
    Score,
    denoising_score_matching,
    energy_score,
    exact_score_matching,
    sliced_score_matching,
    weighted_score_matching,
)
from diffjax.losses.weights import (
    WEIGHTS,
    Weight,
    constant,
    edm,
    min_snr,
    p2,
    sigmoid,
    snr,
    snr_plus_one,
    soft_min_snr,
    truncated_snr,
)

__all__ = [
    "DEFAULTS",
    "LOSSES",
    "WEIGHTS",
    "Projection",
    "Score",
    "Weight",
    "chain_loss",
    "constant",
    "denoising_score_matching",
    "draw",
    "edm",
    "energy_score",
    "exact_score_matching",
    "flow_matching",
    "hybrid",
    "learned_uncertainty",
    "min_snr",
    "p2",
    "sigmoid",
    "simple",
    "sliced_score_matching",
    "snr",
    "snr_plus_one",
    "soft_min_snr",
    "truncated_snr",
    "vlb",
    "weighted",
    "weighted_score_matching",
]
