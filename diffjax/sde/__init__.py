"""Diffusions as stochastic differential equations: what they are, the probability flow, and exact likelihood.

The steppers that run them backwards are in `diffjax.samplers`.
"""

import warnings
from typing import Any

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
from diffjax.sde.likelihood import Likelihood, discrete_log_prob, likelihood, log_prob

__all__ = [
    "LIKELIHOOD_FROM",
    "TRAIN_FROM",
    "Likelihood",
    "Transport",
    "decode",
    "diffusion",
    "discrete_log_prob",
    "drift",
    "drift_rate",
    "encode",
    "interpolate_latents",
    "likelihood",
    "log_prob",
    "noise_levels",
    "sample_from",
    "score",
    "squared_diffusion",
    "times",
    "transport",
    "velocity",
]

_MOVED = ("annealed_langevin", "denoised", "euler_maruyama", "predictor_corrector", "reverse_diffusion", "still")


def __getattr__(name: str) -> Any:
    """The steppers under their old names."""
    if name not in _MOVED:
        raise AttributeError(f"module 'diffjax.sde' has no attribute {name!r}")
    from diffjax import samplers

    warnings.warn(f"diffjax.sde.{name} is now diffjax.samplers.{name}", DeprecationWarning, stacklevel=2)
    return getattr(samplers, name)
