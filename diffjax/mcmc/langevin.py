"""Langevin kernels: Hamiltonian Monte Carlo with one leapfrog step of ε = √(2h), h the step of the diffusion.

    x' = x + h M⁻¹ ∇log π(x) + √(2h) M^-½ z,  z ~ N(0, I)

This is the Euler step of dx = ∇log π dt + √2 dW for M = 1 (Roberts & Tweedie 1996). The paper on annealed Langevin
dynamics (Song & Ermon 2019) writes x + ½α ∇log π + √α z, so its α is 2h. Without Metropolis the chain has a bias of
order h: on N(0, s²) its stationary variance is s²/(1 - h/(2s²)). With Metropolis (MALA) it has no bias.
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from diffjax.dtypes import as_float
from diffjax.mcmc.hmc import LogDensity, hmc
from diffjax.mcmc.integrators import Score, check_step_size
from diffjax.mcmc.kernel import Kernel


def langevin(
    log_density: LogDensity | None,
    step_size: ArrayLike,
    metropolis: bool = False,
    inverse_mass: Any = 1.0,
    score: Score | None = None,
) -> Kernel:
    """x + h M⁻¹ score + √(2h) M^-½ z, unadjusted or, with `metropolis`, MALA. One score evaluation per step.

    Args:
        log_density: position -> log π up to a constant, a scalar in nats. None if `score` is given.
        step_size: h > 0.
        inverse_mass: M⁻¹, the preconditioner, as in `hmc`.
        score: position -> ∇log π, for targets without a known density: `langevin(None, h, score=score)`.

    Returns:
        A Kernel of HMCState and HMCInfo.

    Raises:
        InputError: as `hmc`.
    """
    check_step_size(step_size)
    return hmc(log_density, jnp.sqrt(2.0 * as_float(step_size)), 1, inverse_mass, metropolis, score=score)
