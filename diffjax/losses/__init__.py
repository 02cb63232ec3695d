"""Training losses, per example and unreduced: of diffusion models, of few-step models, and score matching."""

from diffjax.losses.chains import DEFAULTS, LOSSES, chain_loss
from diffjax.losses.consistency import (
    consistency_distillation,
    consistency_function,
    consistency_training,
    pseudo_huber,
)
from diffjax.losses.consistency_times import Curriculum, Pairs, consistency_pairs
from diffjax.losses.diffusion import draw, flow_matching, hybrid, learned_uncertainty, simple, vlb, weighted
from diffjax.losses.mean_flow import adaptive, mean_flow
from diffjax.losses.progressive import progressive, two_steps
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
    "Curriculum",
    "Pairs",
    "Projection",
    "Score",
    "Weight",
    "adaptive",
    "chain_loss",
    "consistency_distillation",
    "consistency_function",
    "consistency_pairs",
    "consistency_training",
    "constant",
    "denoising_score_matching",
    "draw",
    "edm",
    "energy_score",
    "exact_score_matching",
    "flow_matching",
    "hybrid",
    "learned_uncertainty",
    "mean_flow",
    "min_snr",
    "p2",
    "progressive",
    "pseudo_huber",
    "sigmoid",
    "simple",
    "sliced_score_matching",
    "snr",
    "snr_plus_one",
    "soft_min_snr",
    "truncated_snr",
    "two_steps",
    "vlb",
    "weighted",
    "weighted_score_matching",
]
