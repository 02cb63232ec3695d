"""Generative stochastic networks: chains that are learned as their own transition (Bengio et al. 2014).

    h_{t+1} ~ q(h | x_t, h_t),   x_{t+1} ~ p(x | h_{t+1})

A denoising auto-encoder is the case in which h is x with noise, q(x̃ | x), and p(x | x̃) its reconstruction. If p is
the exact posterior of x given h under the data and q, the chain's stationary law is that of the data.

Walkback trains p where the chain goes. From a training example x_0 it runs the chain, and asks of every place for x_0:

    L = -(1/K) Σ_{t=1..K} log p(x_0 | h_t),   no gradient through the draws x_t
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.distributions import Distribution
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.mcmc.kernel import Kernel

Network = Callable[[PRNGKeyArray, Array, Any], tuple[Any, Distribution]]  # (key, x, h) -> h', p(x | h')


class Walk(NamedTuple):
    """position: (x, h), h any pytree."""

    position: tuple[Array, Any]


class WalkInfo(NamedTuple):
    """law: p(x | h) from which x was drawn."""

    law: Any


def stochastic_network(network: Network) -> Kernel:
    """The chain as a Kernel on positions (x, h)."""

    def init(position: tuple[Array, Any]) -> Walk:
        if not isinstance(position, tuple) or len(position) != 2:
            raise InputError("position must be a pair (x, h); of a network without a state of its own h is ()")
        return Walk(position)

    def step(key: PRNGKeyArray, state: Walk) -> tuple[Walk, WalkInfo]:
        network_key, key = jax.random.split(key)
        x, h = state.position
        h, law = network(network_key, x, h)
        return Walk((jnp.asarray(law.sample(key), x.dtype), h)), WalkInfo(law)

    return Kernel(init, step)


def walkback(network: Network, key: PRNGKeyArray, x0: Array, h0: Any, num_steps: int) -> Float[Array, ""]:
    """The loss of one example in nats, by a chain of `num_steps`; the gradient goes through h, and not through x.

    Raises:
        InputError: if num_steps is no positive integer.
    """
    num_steps = check_num_steps("num_steps", num_steps)
    kernel = stochastic_network(network)

    def body(state: Walk, key: PRNGKeyArray) -> tuple[Walk, Array]:
        state, info = kernel.step(key, state)
        x, h = state.position
        return Walk((jax.lax.stop_gradient(x), h)), -info.law.log_prob(x0).sum()

    _, losses = jax.lax.scan(body, kernel.init((x0, h0)), jax.random.split(key, num_steps))
    return losses.mean()
