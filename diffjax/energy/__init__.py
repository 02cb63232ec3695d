"""Energies: models p(v) = exp(-F(v))/Z whose Z is not known. Restricted and deep Boltzmann machines, and log Z."""

from diffjax.energy import belief
from diffjax.energy.contrastive import (
    centre_of,
    contrastive_divergence,
    persistent,
    persistent_divergence,
    run_chains,
)
from diffjax.energy.deep import bipartite, deep_energy, deep_init, mean_field, mean_field_bound, odd_layers
from diffjax.energy.machine import (
    energy,
    free_energy,
    hidden_given,
    init,
    kernel,
    log_partition_by_enumeration,
    visible_given,
)
from diffjax.energy.partition import betas, log_partition_by_annealing

__all__ = [
    "belief",
    "betas",
    "bipartite",
    "centre_of",
    "contrastive_divergence",
    "deep_energy",
    "deep_init",
    "energy",
    "free_energy",
    "hidden_given",
    "init",
    "kernel",
    "log_partition_by_annealing",
    "log_partition_by_enumeration",
    "mean_field",
    "mean_field_bound",
    "odd_layers",
    "persistent",
    "persistent_divergence",
    "run_chains",
    "visible_given",
]
