"""Markov chain Monte Carlo kernels as pure functions: `init(position)`, `step(key, state) -> (state, info)`."""

from diffjax.mcmc.annealing import Annealed, ais, ais_along
from diffjax.mcmc.block_gibbs import block_gibbs
from diffjax.mcmc.diagnostics import ess, ess_tail, rhat
from diffjax.mcmc.fitting import fit_gaussian
from diffjax.mcmc.gibbs import gibbs, over_relaxed, over_relaxed_gibbs
from diffjax.mcmc.hmc import HMCInfo, HMCState, hmc
from diffjax.mcmc.integrators import LEAPFROG, MCLACHLAN, YOSHIDA, integrate, leapfrog
from diffjax.mcmc.kernel import Kernel, run
from diffjax.mcmc.langevin import langevin
from diffjax.mcmc.tangent import tangent_walk
from diffjax.mcmc.walkback import stochastic_network, walkback
from diffjax.mcmc.warmup import Warmup, warmup

__all__ = [
    "LEAPFROG",
    "MCLACHLAN",
    "YOSHIDA",
    "Annealed",
    "HMCInfo",
    "HMCState",
    "Kernel",
    "Warmup",
    "ais",
    "ais_along",
    "block_gibbs",
    "ess",
    "ess_tail",
    "fit_gaussian",
    "gibbs",
    "hmc",
    "integrate",
    "langevin",
    "leapfrog",
    "over_relaxed",
    "over_relaxed_gibbs",
    "rhat",
    "run",
    "stochastic_network",
    "tangent_walk",
    "walkback",
    "warmup",
]
