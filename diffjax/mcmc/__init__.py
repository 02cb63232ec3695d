"""Markov chain Monte Carlo kernels as pure functions: `init(position)`, `step(key, state) -> (state, info)`."""

from diffjax.mcmc.integrators import LEAPFROG, MCLACHLAN, YOSHIDA, integrate, leapfrog
from diffjax.mcmc.kernel import Kernel, run

__all__ = ["LEAPFROG", "MCLACHLAN", "YOSHIDA", "Kernel", "integrate", "leapfrog", "run"]
