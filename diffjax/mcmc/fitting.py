"""A Gaussian fitted to a density by Markov chains: a proposal q for importance sampling where none is at hand.

    log ∫ f = log E_q[w],  w = f(z)/q(z),  q = N(m, c S),  m and S the moments of draws from f/∫f by HMC

That is unbiased in w whatever the chains did, for q is fixed before z is drawn from it; chains that mixed make w vary
little. The widening c > 1 keeps the tails of q above those of f, where a weight could be large. For the posterior of an
auto-encoder with 32 latents the effective number of draws is a fifth of their number.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.mcmc.annealing import Start
from diffjax.mcmc.hmc import LogDensity, hmc
from diffjax.mcmc.integrators import check_num_steps
from diffjax.mcmc.kernel import run
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
    """The mean and `widening` times the covariance of HMC's draws.

    Args:
        log_density: position (dim,) -> log f, a scalar in nats, up to a constant.
        start: where each chain begins, one draw of it.
        num_chains, num_steps: each chain takes `num_steps` to tune itself and as many again that count; their product
            should be many times dim, or S is singular.

    Raises:
        InputError: if num_chains is no positive integer, or as `warmup` and `hmc`.
    """
    check_num_steps("num_chains", num_chains)

    def chain(key: PRNGKeyArray) -> Array:
        start_key, warmup_key, key = jax.random.split(key, 3)

        def kernel(step_size, inverse_mass):
            return hmc(log_density, step_size, num_leapfrog, inverse_mass)

        tuned = warmup(kernel, warmup_key, start.sample(start_key), num_steps, step_size=0.1)
        states, _ = run(kernel(tuned.step_size, tuned.inverse_mass), key, tuned.position, num_steps)
        return states.position

    draws = jax.vmap(chain)(jax.random.split(key, num_chains))
    draws = draws.reshape(-1, draws.shape[-1])
    return draws.mean(0), widening * jnp.cov(draws, rowvar=False).reshape(draws.shape[-1], draws.shape[-1])
