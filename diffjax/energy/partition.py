"""log Z of a restricted Boltzmann machine by annealed importance sampling (Salakhutdinov and Murray 2008).

The path goes through machines, from one without weights, whose visible biases b_A have the data's means, to the last,

    W_β = β W,   b_β = (1 - β) b_A + β b,   c_β = β c,   log f_β(v) = -F_β(v) - (1 - β) log Z_A

so that f_0 is normalised, f_1 = exp(-F), and hidden units are summed out of the weights. Of visible units that are
real, the variances are those of the machine all along.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import mcmc
from diffjax.distributions import LOG_2PI, Distribution
from diffjax.dtypes import AnyArray
from diffjax.energy.contrastive import check_count
from diffjax.energy.machine import Params, hidden_given, is_real, kernel, visible_given


def betas(num: int) -> np.ndarray:
    """`num` steps of equal length from 0 to 1: (num + 1,)."""
    check_count("num", num, "temperatures")
    return np.linspace(0.0, 1.0, num + 1)


def log_partition_by_annealing(
    params: Params,
    key: PRNGKeyArray,
    base: Float[AnyArray, " visible"],
    temperatures: Float[AnyArray, " num"],
    num_chains: int,
) -> Float[Array, " num_chains"]:
    """Log-weights, whose mean weight estimates Z without bias: `log_mean` of them falls short of log Z on average.

    Args:
        base: b_A, see `contrastive.centre_of`.
        temperatures: from 0 to 1, see `betas`.

    Raises:
        InputError: if num_chains is no integer of at least 1, or the temperatures are not in order.
    """
    check_count("num_chains", num_chains, "chains")
    independent = {**params, "weights": jnp.zeros_like(params["weights"]), "visible": jnp.asarray(base)}
    start = _Start(visible_given(independent, params["hidden"]), jnp.zeros_like(params["hidden"]))
    hidden = params["hidden"].size
    if is_real(params):
        log_base = 0.5 * (LOG_2PI + params["log_variance"]).sum() + hidden * np.log(2.0)
    else:
        log_base = jax.nn.softplus(jnp.asarray(base)).sum() + hidden * np.log(2.0)

    def between(beta: Array) -> dict[str, Array]:
        visible = (1.0 - beta) * base + beta * params["visible"]
        moved = {"weights": beta * params["weights"], "visible": visible, "hidden": beta * params["hidden"]}
        return {**params, **moved}

    def alone(v: Array, beta: Array) -> Array:
        visible = between(beta)["visible"]
        if is_real(params):
            return -0.5 * ((v - visible) ** 2 / jnp.exp(params["log_variance"])).sum()
        return (v * visible).sum()

    def rise(position: tuple[Array, Array], beta: Array, later: Array) -> Array:
        _, v = position
        logits = hidden_given(params, v).logits  # one product serves both machines
        of_hidden = (jax.nn.softplus(later * logits) - jax.nn.softplus(beta * logits)).sum()
        return of_hidden + alone(v, later) - alone(v, beta) + (later - beta) * log_base

    def moves(beta: Array) -> mcmc.Kernel:
        """Without its infos: they would be kept of every temperature, gigabytes of a large machine."""
        gibbs = kernel(between(beta))
        return mcmc.Kernel(gibbs.init, lambda key, state: (gibbs.step(key, state)[0], ()))

    def chain(key: PRNGKeyArray) -> Array:
        return mcmc.ais_along(key, start, rise, temperatures, moves).log_weight

    return jax.vmap(chain)(jax.random.split(key, num_chains))


class _Start(NamedTuple):
    """Draws v without weights. No hidden units are needed: the first step draws them."""

    law: Distribution
    hidden: Array

    def sample(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        return self.hidden, self.law.sample(key)

    def log_prob(self, x: tuple[Array, Array]) -> Array:
        return self.law.log_prob(x[1]).sum()
