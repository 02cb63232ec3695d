"""Conditioning: from samples of p(x) to samples of p(x) r(x)/Z, where r describes what is known of x_0.

Start with `given`. It maps Predict to Predict, so it works with every sampler. `colourisation` is the same for pixels
whose grey value is known. `classifier_free` guides a conditional model by an unconditional one. `denoising_start`
denoises data exactly, for every model. The kernels of Sohl-Dickstein et al. 2015, `perturbed` and `tilted`, hold r
constant over t. That is biased; their docstrings say by how much.

Inverse problems: `linear_operator` makes an observation of any linear function with noise, for `given`. `operators` has
common linear functions. `twisted` is exact in the limit of many particles, also for nonlinear likelihoods. `dps` and
`plugged` are cheaper but biased; the module `measurements` says by how much.
"""

from diffjax.conditioning import operators
from diffjax.conditioning.classifier_free import classifier_free
from diffjax.conditioning.dps import dps
from diffjax.conditioning.guidance import denoising_start, expected, given, guided, plugged
from diffjax.conditioning.kernels import Multiplied, perturbed, tilted
from diffjax.conditioning.linear import basis_along, colourisation, rotated
from diffjax.conditioning.measurements import Measurement, linear_operator
from diffjax.conditioning.observations import Observation, denoising, flipped, inpainting
from diffjax.conditioning.particles import Particles, twisted

__all__ = [
    "Measurement",
    "Multiplied",
    "Observation",
    "Particles",
    "basis_along",
    "classifier_free",
    "colourisation",
    "denoising",
    "denoising_start",
    "dps",
    "expected",
    "flipped",
    "given",
    "guided",
    "inpainting",
    "linear_operator",
    "operators",
    "perturbed",
    "plugged",
    "rotated",
    "tilted",
    "twisted",
]
