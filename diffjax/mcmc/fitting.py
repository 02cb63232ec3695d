"""A Gaussian fitted to a density by Markov chains, as a proposal q for importance sampling.

    log ∫ f = log E_q[w],  w = f(z)/q(z),  q = N(m, c S),  m and S the moments of draws from f/∫f by HMC

w is unbiased even if the chains did not mix, because q is fixed before z is drawn. If they mixed, w varies little. The
widening c > 1 keeps the tails of q above those of f, where weights could be large. For the posterior of an auto-encoder
with 32 latents, the effective number of draws is a fifth of their number.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.mcmc.annealing import Start
from diffjax.mcmc.hmc import LogDensity, hmc
from diffjax.mcmc.integrators import check_num_steps, is_concrete, promoted
from diffjax.mcmc.kernel import Kernel, run
from diffjax.mcmc.warmup import warmup


def fit_gaussian(
    key: PRNGKeyArray,
    log_density: LogDensity,
    start: Start,
    num_chains: int = 8,
    num_steps: int = 100,
    num_leapfrog: int = 5,
    widening: float = 1.2,
) -> tuple[Float[Array, " dim"], Float[Array, "dim dim"]]:
    """The mean and `widening` times the covariance of the draws of HMC.

    Args:
        log_density: position (dim,) -> log f, a scalar in nats, up to a constant.
        start: each chain begins at a draw of it.
        num_chains, num_steps: each chain has `num_steps` steps of tuning, and as many again that are used. The product
            should be many times dim, or S is singular.

    Raises:
        InputError: if num_chains is no positive integer, a chain starts where log f or its gradient is not finite, or
            as `warmup` and `hmc`. If such a start is traced, there is no error: mean and covariance are NaN.
    """
    num_chains = check_num_steps("num_chains", num_chains)

    def kernel(step_size: Array, inverse_mass: Array) -> Kernel:
        return hmc(log_density, step_size, num_leapfrog, inverse_mass)

    def chain(key: PRNGKeyArray) -> tuple[Array, Array]:
        start_key, warmup_key, key = jax.random.split(key, 3)
        position = promoted(start.sample(start_key))
        tuned = warmup(kernel, warmup_key, position, num_steps, step_size=0.1)
        states, _ = run(kernel(tuned.step_size, tuned.inverse_mass), key, tuned.position, num_steps)
        return states.position, jnp.isfinite(tuned.step_size)  # the step size is NaN if the chain could not start

    def program(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        draws, moved = jax.vmap(chain)(jax.random.split(key, num_chains))
        draws = jnp.where(moved[:, None, None], draws, jnp.nan)
        draws = draws.reshape(-1, draws.shape[-1])
        centred = draws - draws.mean(0)
        cov = matmul(centred.T, centred) / (len(draws) - 1)
        return draws.mean(0), jnp.asarray(widening, cov.dtype) * cov, moved

    mean, cov, moved = eager.once(program, key)
    if is_concrete(moved) and not np.all(moved):
        raise InputError("log_density and its gradient must be finite where start draws: for one chain they are not")
    return mean, cov
