"""Diffusions as stochastic differential equations: what they are, how to run them backwards, and exact likelihood."""

from diffjax.sde import noise_levels
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
from diffjax.sde.flow import Transport, decode, encode, interpolate_latents, transport
from diffjax.sde.langevin import annealed_langevin
from diffjax.sde.likelihood import Likelihood, discrete_log_prob, likelihood, log_prob
from diffjax.sde.solvers import denoised, euler_maruyama, predictor_corrector, reverse_diffusion, still

__all__ = [
    "LIKELIHOOD_FROM",
    "TRAIN_FROM",
    "Likelihood",
    "Transport",
    "annealed_langevin",
    "decode",
    "denoised",
    "diffusion",
    "discrete_log_prob",
    "drift",
    "drift_rate",
    "encode",
    "euler_maruyama",
    "interpolate_latents",
    "likelihood",
    "log_prob",
    "noise_levels",
    "predictor_corrector",
    "reverse_diffusion",
    "sample_from",
    "score",
    "squared_diffusion",
    "still",
    "times",
    "transport",
    "velocity",
]
