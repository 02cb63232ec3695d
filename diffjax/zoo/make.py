"""Makes a Model from a configuration."""

from collections.abc import Callable
from typing import Any

from diffjax.errors import InputError
from diffjax.zoo.adversarial import gan
from diffjax.zoo.autoencoders import autoencoder
from diffjax.zoo.autoregressive import autoregressive
from diffjax.zoo.classifiers import classifier
from diffjax.zoo.diffusion import (
    binomial,
    categorical,
    consistency,
    ddpm,
    flow_matching,
    gaussian,
    guided,
    mean_flow,
    progressive,
    rectified,
    score,
    vdm,
)
from diffjax.zoo.energy import dbm, dbn, rbm
from diffjax.zoo.energy import make as energy
from diffjax.zoo.flows import density, energies
from diffjax.zoo.latent import helmholtz, hvi, semi_supervised, vae, vq_vae_config
from diffjax.zoo.markov import beta_binomial, bivariate_gaussian, black_box, gsn
from diffjax.zoo.model import Model

SYSTEMS: dict[str, Callable[[Any], Model]] = {
    "ddpm": ddpm.make,
    "score": score.make,
    "guided": guided.make,
    "vdm": vdm.make,
    "consistency": consistency.make,
    "mean_flow": mean_flow.make,
    "progressive": progressive.make,
    "flow_matching": flow_matching.make,
    "reflow": rectified.make,
    "gaussian_diffusion": gaussian.make,
    "binomial_diffusion": binomial.make,
    "categorical_diffusion": categorical.make,
    "vae": vae.make,
    "vq_vae": vq_vae_config.make,
    "hvi": hvi.make,
    "helmholtz": helmholtz.make,
    "semi_supervised": semi_supervised.make,
    "bivariate_gaussian": bivariate_gaussian.make,
    "beta_binomial": beta_binomial.make,
    "black_box": black_box.make,
    "gsn": gsn.make,
    "flow_density": density.make,
    "flow_energies": energies.make,
    "energy_model": energy.make,
    "gan": gan.make,
    "autoregressive": autoregressive.make,
    "rbm": rbm.make,
    "dbn": dbn.make,
    "dbm": dbm.make,
    "autoencoder": autoencoder.make,
    "classifier": classifier.make,
}


def make(config: Any) -> Model:
    """The system that `config.system` names, built from the rest of the configuration. `configs/*.py` have examples.

    Raises:
        InputError: on an unknown system, or on a value that the system cannot use.
    """
    if config.system not in SYSTEMS:
        raise InputError(f"system must be one of {', '.join(SYSTEMS)}, not {config.system!r}")
    shape, levels = config.data.shape, config.data.levels
    if not isinstance(shape, tuple | list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        raise InputError(f"data.shape must be positive integers, the sizes of one example's axes, not {shape!r}")
    if type(levels) is not int or not (levels == 0 or 2 <= levels <= 256):
        raise InputError(
            f"data.levels must be the number of values that an element takes, 2 to 256, or 0 for real numbers, not"
            f" {levels!r}"
        )
    return SYSTEMS[config.system](config)
