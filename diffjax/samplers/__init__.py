"""Samplers: steppers from time t to time s < t in a file for each family, one driver, and one registry of names."""

from diffjax.samplers.diffusion import ancestral, ddim
from diffjax.samplers.driver import State, Stepper, denoise, interpolate, sample, spaced
from diffjax.samplers.langevin import annealed_langevin
from diffjax.samplers.ode import dpmpp_2m, heun, probability_flow
from diffjax.samplers.registry import SAMPLERS, make
from diffjax.samplers.stochastic import denoised, euler_maruyama, predictor_corrector, reverse_diffusion, still

__all__ = [
    "SAMPLERS",
    "State",
    "Stepper",
    "ancestral",
    "annealed_langevin",
    "ddim",
    "denoise",
    "denoised",
    "dpmpp_2m",
    "euler_maruyama",
    "heun",
    "interpolate",
    "make",
    "predictor_corrector",
    "probability_flow",
    "reverse_diffusion",
    "sample",
    "spaced",
    "still",
]
