"""Variational inference with Markov chains: log-weights, and the bounds and gradients made of them."""

from diffjax.vi.hamiltonian import Hamiltonian, LinearNormal, hamiltonian, hamiltonian_log_weight, linear_hamiltonian
from diffjax.vi.markov_chain import Coordinate, markov_chain, markov_chain_log_weight
from diffjax.vi.objectives import objective

__all__ = [
    "Coordinate",
    "Hamiltonian",
    "LinearNormal",
    "hamiltonian",
    "hamiltonian_log_weight",
    "linear_hamiltonian",
    "markov_chain",
    "markov_chain_log_weight",
    "objective",
]
