"""Markov chain Monte Carlo kernels as pure functions: `init(position)`, `step(key, state) -> (state, info)`."""

from diffjax.mcmc.hmc import HMCInfo, HMCState, hmc
from diffjax.mcmc.integrators import LEAPFROG, MCLACHLAN, YOSHIDA, integrate, leapfrog
from diffjax.mcmc.kernel import Kernel, run
from diffjax.mcmc.langevin import langevin
from diffjax.mcmc.warmup import Warmup, warmup

__all__ = [
    "LEAPFROG",
    "MCLACHLAN",
    "YOSHIDA",
    "HMCInfo",
    "HMCState",
    "Kernel",
    "Warmup",
    "hmc",
    "integrate",
    "langevin",
    "leapfrog",
    "run",
    "warmup",
]
