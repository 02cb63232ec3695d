"""Variational inference: gradient estimators, factorised distributions, Markov chains, and the bounds made of them."""

from diffjax.vi import mean_field
from diffjax.vi.gradients import (
    MovingAverage,
    analytic_entropy,
    expectation,
    gradient,
    negative_kl,
    sampled_entropy,
    value_and_gradient,
)
from diffjax.vi.hamiltonian import Hamiltonian, LinearNormal, hamiltonian, hamiltonian_log_weight, linear_hamiltonian
from diffjax.vi.markov_chain import Coordinate, markov_chain, markov_chain_log_weight
from diffjax.vi.mean_field import Factorised
from diffjax.vi.objectives import objective
from diffjax.vi.wake_sleep import Machine, reweighted_wake_sleep, wake_sleep

__all__ = [
    "Coordinate",
    "Factorised",
    "Hamiltonian",
    "LinearNormal",
    "Machine",
    "MovingAverage",
    "analytic_entropy",
    "expectation",
    "gradient",
    "hamiltonian",
    "hamiltonian_log_weight",
    "linear_hamiltonian",
    "markov_chain",
    "markov_chain_log_weight",
    "mean_field",
    "negative_kl",
    "objective",
    "reweighted_wake_sleep",
    "sampled_entropy",
    "value_and_gradient",
    "wake_sleep",
]
