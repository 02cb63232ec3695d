"""All samplers by name, for every system, every configuration and --sampler.

To add a sampler, write a factory process -> Stepper in one of this package's files, and add a line to `SAMPLERS`. The
parameters of a factory have the names of the fields in a configuration's section `sampling`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from diffjax import registry
from diffjax.processes import Gaussian, Process
from diffjax.samplers.categorical import first_hitting, remasking, tau_leaping
from diffjax.samplers.diffusion import ancestral, consistency, ddim
from diffjax.samplers.driver import Stepper
from diffjax.samplers.exponential import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m, unipc
from diffjax.samplers.langevin import annealed_langevin
from diffjax.samplers.ode import euler, heun, probability_flow
from diffjax.samplers.restart import restart
from diffjax.samplers.stochastic import (
    denoised,
    euler_maruyama,
    predictor_corrector,
    require_gaussian,
    reverse_diffusion,
    still,
)
from diffjax.samplers.straight import interpolant_sde, midpoint, rk4

RELATIVE_STEP = 0.2  # of Langevin steps at a level, in units of its variance: that of Song & Ermon (2019)


def _corrected(
    process: Gaussian,
    predictor: str = "reverse_diffusion",
    snr: ArrayLike = 0.16,
    corrector_steps: int = 1,
    denoise: bool = False,
) -> Stepper:
    """`predictor_corrector` by the name of its predictor."""
    require_gaussian("predictor_corrector", process)
    stepper = registry.choose("sampling.predictor", predictor, PREDICTORS)(process)
    return predictor_corrector(process, denoised(process, stepper) if denoise else stepper, snr, corrector_steps)


def _annealed(
    process: Gaussian, step_size: ArrayLike | None = None, corrector_steps: int = 100, denoise: bool = True
) -> Stepper:
    """`annealed_langevin`, by default with a step that is the same fraction of each level's variance."""
    require_gaussian("annealed_langevin", process)
    step_size = RELATIVE_STEP * process.schedule.sigma(jnp.zeros(())) ** 2 if step_size is None else step_size
    return annealed_langevin(process, step_size, corrector_steps, denoise)


def _flow(process: Gaussian, denoise: bool = True) -> Stepper:
    """`probability_flow`, which always ends in the estimate of x_0."""
    require_gaussian("probability_flow", process)
    return probability_flow(process)


SAMPLERS: dict[str, Callable[..., Stepper]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "rk4": rk4,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
    "restart": restart,
    "euler_maruyama": euler_maruyama,
    "interpolant_sde": interpolant_sde,
    "reverse_diffusion": reverse_diffusion,
    "predictor_corrector": _corrected,
    "annealed_langevin": _annealed,
    "probability_flow": _flow,
    "consistency": consistency,
    "tau_leaping": tau_leaping,
    "remasking": remasking,
    "first_hitting": first_hitting,
}
NOT_GAUSSIAN = ("ancestral", "tau_leaping", "remasking", "first_hitting")  # they check their process themselves
# Steppers that read only x of the state. A corrector may move x between their steps.
PREDICTORS: dict[str, Callable[..., Stepper]] = {
    name: SAMPLERS[name]
    for name in ("ancestral", "euler_maruyama", "reverse_diffusion", "ddim", "euler", "heun", "dpmpp_2s")
} | {"none": still}


def make(name: str, process: Process, settings: Mapping[str, Any], denoise: bool = False) -> Stepper:
    """SAMPLERS[name](process, ...) with the `settings` that it takes, e.g. of a configuration's section `sampling`.

    Args:
        denoise: whether to end in the estimate of x_0 (`denoised`), as the papers of score models do.

    Raises:
        InputError: on an unknown name, a setting out of range, or a sampler that does not suit the process.
    """
    factory = registry.choose("sampling.sampler", name, SAMPLERS)
    if name not in NOT_GAUSSIAN:
        require_gaussian(name, process)
    stepper = registry.build(factory, process, settings={**settings, "denoise": denoise})
    ends_clean = "denoise" in inspect.signature(factory).parameters
    return stepper if ends_clean or not denoise else denoised(process, stepper)  # type: ignore[arg-type]
