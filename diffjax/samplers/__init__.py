"""Samplers: steppers from time t to time s < t in a file for each family, one driver, and one registry of names."""

from diffjax.samplers.categorical import first_hitting, remasking, tau_leaping
from diffjax.samplers.churn import churned
from diffjax.samplers.diffusion import ancestral, consistency, ddim
from diffjax.samplers.driver import State, Stepper, denoise, interpolate, sample, spaced
from diffjax.samplers.exponential import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m, unipc
from diffjax.samplers.grids import grid, noise_levels
from diffjax.samplers.langevin import annealed_langevin
from diffjax.samplers.ode import euler, flow_step, heun, mean_flow, probability_flow
from diffjax.samplers.registry import SAMPLERS, make
from diffjax.samplers.restart import restart
from diffjax.samplers.stochastic import denoised, euler_maruyama, predictor_corrector, reverse_diffusion, still
from diffjax.samplers.straight import interpolant_sde, midpoint, rk4

__all__ = [
    "SAMPLERS",
    "State",
    "Stepper",
    "ancestral",
    "annealed_langevin",
    "churned",
    "consistency",
    "ddim",
    "denoise",
    "denoised",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "euler",
    "euler_maruyama",
    "first_hitting",
    "flow_step",
    "grid",
    "heun",
    "interpolant_sde",
    "interpolate",
    "make",
    "mean_flow",
    "midpoint",
    "noise_levels",
    "predictor_corrector",
    "probability_flow",
    "remasking",
    "restart",
    "reverse_diffusion",
    "rk4",
    "sample",
    "spaced",
    "still",
    "tau_leaping",
    "unipc",
]
