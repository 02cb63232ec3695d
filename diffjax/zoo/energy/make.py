"""From a configuration to an energy model: networks by name, settings, and what is known of the data."""

from typing import Any

import numpy as np
from jax import Array

from diffjax import registry
from diffjax.errors import InputError
from diffjax.nets.adversarial import Discriminator, check_halvings
from diffjax.nets.autoencoders import Dense
from diffjax.zoo.diffusion.score_toy import truth
from diffjax.zoo.energy import hyvarinen
from diffjax.zoo.energy.energy_model import Answer, Chains, Network, energy_model
from diffjax.zoo.energy.objectives import OBJECTIVES, OF_BITS, OF_ENERGIES, Settings
from diffjax.zoo.energy.partition import support
from diffjax.zoo.model import Model

NETWORKS = ("mlp", "conv", "gaussian", "ica", "filters")


def make(config: Any) -> Model:
    """The Model of `config.{data, ebm, net, sampling}`, see configs/ebm_toy.py.

    Raises:
        InputError: on a network, an objective or a number that does not exist or does not fit the data.
    """
    setting, shape, levels = config.ebm, tuple(config.data.shape), config.data.levels
    registry.choose("ebm.objective", setting.objective, OBJECTIVES)
    registry.choose("ebm.model", setting.model, ("energy", "score"))
    _check(setting, config.sampling)
    if (levels == 2) != (setting.objective in OF_BITS):
        kind = "bits" if levels == 2 else "real numbers or grey levels"
        names = ", ".join(OF_BITS if levels == 2 else [name for name in OBJECTIVES if name not in OF_BITS])
        raise InputError(f"ebm.objective={setting.objective!r} does not fit data of {kind}: choose {names}")
    if setting.model == "score" and setting.objective in OF_ENERGIES | OF_BITS:
        raise InputError(f"ebm.objective={setting.objective!r} needs an energy: set ebm.model='energy'")
    network = _network(config.net, shape, setting)
    known = config.data.name == "mixture" and shape == (2,)
    return energy_model(
        network,
        shape,
        levels,
        objective=setting.objective,
        settings=Settings(**{name: setting[name] for name in Settings._fields}),
        chains=Chains(config.sampling.steps, config.sampling.step_size, setting.start_std),
        over=support(shape, levels, setting.half_width),
        truth=truth(config.data) if known else None,
        answer=_answer(config),
    )


def _check(setting: Any, sampling: Any) -> None:
    for name in ("chain_steps", "ratio", "chains"):
        if type(setting[name]) is not int or setting[name] < 1:
            raise InputError(f"ebm.{name} = {setting[name]!r} must be an integer of at least 1")
    for name in ("sigma", "step_size", "noise_std", "start_std", "half_width"):
        if not setting[name] > 0:
            raise InputError(f"ebm.{name} = {setting[name]!r} must be a positive number")
    if not 0 <= setting.restart <= 1:
        raise InputError(f"ebm.restart = {setting.restart!r} must be a probability")
    if type(sampling.steps) is not int or sampling.steps < 1:
        raise InputError(f"sampling.steps = {sampling.steps!r} must be an integer of at least 1")
    if not sampling.step_size > 0:
        raise InputError(f"sampling.step_size = {sampling.step_size!r} must be a positive number")


def _network(net: Any, shape: tuple[int, ...], setting: Any) -> Network:
    registry.choose("net.name", net.name, NETWORKS)
    if (net.name == "conv") != (len(shape) == 3):
        raise InputError(f"net.name={net.name!r} does not fit data.shape={shape}: conv is of images, others of vectors")
    if net.name == "gaussian":
        return hyvarinen.gaussian(shape[0])
    if net.name == "ica":
        return hyvarinen.ica(shape[0])
    if net.name == "filters":
        return hyvarinen.filters(shape[0], net.num)
    if setting.model == "score":
        if net.name == "conv":
            raise InputError("net.name='conv' is an energy: set ebm.model='energy', or take configs/ncsn_digits.py")
        module: Any = Dense(tuple(net.features), shape[0])
        return Network(module.init, module.apply, is_energy=False)
    if net.name == "conv":
        check_halvings(shape, net.channels)
        judge: Any = Discriminator(tuple(net.channels))
        return Network(judge.init, _held(judge.apply, setting.start_std))
    dense: Any = Dense(tuple(net.features), 1)
    return Network(dense.init, _held(lambda params, x: dense.apply(params, x)[:, 0], setting.start_std))


def _held(apply: Any, std: float) -> Any:
    """The network's energy plus that of N(0, std²): without it exp(-E) may have no finite integral."""

    def energy(params: Any, x: Array) -> Array:
        return apply(params, x) + 0.5 * (x.reshape(len(x), -1) ** 2).sum(1) / std**2

    return energy


def _answer(config: Any) -> Answer | None:
    """What the parameters should be, where it is known."""
    if config.net.name == "gaussian" and "sigmas" in config.data:  # of "correlated", see `data.toys.correlated`
        of_difference, of_sum = (1 / sigma**2 for sigma in config.data.sigmas)
        same, other = of_difference + of_sum, of_sum - of_difference
        want = np.array([[same, other], [other, same]])
        return lambda params: hyvarinen.precision_error(params, want)
    if config.net.name == "ica" and "matrix" in config.data:
        matrix = np.asarray(config.data.matrix, float)
        return lambda params: hyvarinen.unmixing_error(params, matrix)
    return None
