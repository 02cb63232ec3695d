"""Multiplying distributions: from samples of p(x) to samples of p(x) r(x)/Z, with r what is known of x_0.

`given` is the one to start with: it maps Predict to Predict and so works with every sampler; `colourisation` is the
same for pixels whose grey value is known. `classifier_free` guides a conditional model by an unconditional one. Noisy
data are denoised exactly, whatever the model, from `denoising_start`. The kernels of Sohl-Dickstein et al. 2015,
`perturbed` and `tilted`, hold r constant over t, which is biased; their docstrings say by how much.

Inverse problems: `linear_operator` makes, for `given`, an observation of any linear function with noise; `operators`
has common ones. `twisted` is exact in the limit of many particles, also for nonlinear likelihoods. `dps` and `plugged`
are cheaper, and biased: the module `measurements` says by how much.
"""

from diffjax.conditioning import operators
from diffjax.conditioning.categories import classifier_free_categories
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
    "classifier_free_categories",
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
