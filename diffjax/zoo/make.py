"""From a configuration to a Model."""

from collections.abc import Callable
from typing import Any

from diffjax.errors import InputError
from diffjax.zoo import (
    autoencoder,
    beta_binomial,
    binomial_diffusion,
    bivariate_gaussian,
    black_box,
    ddpm,
    flow_density,
    flow_energies,
    gaussian_diffusion,
    guided,
    hvi,
    score,
    semi_supervised,
    vae,
)
from diffjax.zoo.model import Model

SYSTEMS: dict[str, Callable[[Any], Model]] = {
    "ddpm": ddpm.make,
    "flow_density": flow_density.make,
    "flow_energies": flow_energies.make,
    "guided": guided.make,
    "gaussian_diffusion": gaussian_diffusion.make,
    "binomial_diffusion": binomial_diffusion.make,
    "bivariate_gaussian": bivariate_gaussian.make,
    "score": score.make,
    "semi_supervised": semi_supervised.make,
    "hvi": hvi.make,
    "beta_binomial": beta_binomial.make,
    "black_box": black_box.make,
    "vae": vae.make,
    "autoencoder": autoencoder.make,
}


def make(config: Any) -> Model:
    """The system that `config.system` names, built from the rest of a configuration as `configs/*.py` return it.

    Raises:
        InputError: on an unknown system or a value the system cannot use.
    """
    if config.system not in SYSTEMS:
        raise InputError(f"system must be one of {', '.join(SYSTEMS)}, not {config.system!r}")
    shape, levels = config.data.shape, config.data.levels
    if not isinstance(shape, tuple | list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        raise InputError(f"data.shape must be positive integers, those of one example's axes, not {shape!r}")
    if type(levels) is not int or not (levels == 0 or 2 <= levels <= 256):
        raise InputError(
            f"data.levels must be the number of values that an element takes, 2 to 256, or 0 for real numbers, not"
            f" {levels!r}"
        )
    return SYSTEMS[config.system](config)
