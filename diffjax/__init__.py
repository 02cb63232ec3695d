"""diffjax: diffusion, score-based and variational latent-variable models as pure functions over arrays.

The modules imported here are mathematics on jax alone. `diffjax.zoo` adds Flax networks; `diffjax.training` and
`diffjax.data` add what a training run needs. Import these yourself. `diffjax.evaluation` is imported at its first use.
"""

import importlib
from typing import Any

from diffjax import (
    any_order,
    autoregressive,
    bounds,
    categorical_bound,
    conditioning,
    continuous_bound,
    distances,
    distributions,
    energy,
    errors,
    flows,
    interpolants,
    learned_schedule,
    losses,
    mcmc,
    predictions,
    processes,
    randomness,
    reference,
    samplers,
    schedules,
    sde,
    time_sampling,
    vi,
)

__all__ = [
    "any_order",
    "autoregressive",
    "bounds",
    "categorical_bound",
    "conditioning",
    "continuous_bound",
    "distances",
    "distributions",
    "energy",
    "errors",
    "evaluation",
    "flows",
    "interpolants",
    "learned_schedule",
    "losses",
    "mcmc",
    "predictions",
    "processes",
    "randomness",
    "reference",
    "samplers",
    "schedules",
    "sde",
    "time_sampling",
    "vi",
]


def __getattr__(name: str) -> Any:
    """`diffjax.evaluation`: its networks need flax, which takes a while to import."""
    if name == "evaluation":
        return importlib.import_module("diffjax.evaluation")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
