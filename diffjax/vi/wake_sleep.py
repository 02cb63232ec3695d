"""Wake-sleep (Hinton, Dayan, Frey and Neal 1995) and reweighted wake-sleep (Bornschein and Bengio 2015).

A generative model p_θ(x, h) and a recognition model q_φ(h | x), neither of which need be differentiable in its draws:

    wake    θ descends -log p(x, h),  h ~ q(h | x), x from the data: the bound E_q[log p(x, h) - log q(h | x)]
    sleep   φ descends -log q(h | x), (x, h) ~ p: KL(p(h | x) ‖ q(h | x)), not the KL of the bound

The two descend two different divergences. So a fixed point need be no maximum of either, and is one of the likelihood
where q can be the exact posterior (Neal and Dayan 1997, for factor analysis). Reweighting takes K draws for one,

    w_k = p(x, h_k)/q(h_k | x),  h_k ~ q(h | x),  w̃ = w/Σ w
    θ descends -Σ_k w̃_k log p(x, h_k),   φ descends -Σ_k w̃_k log q(h_k | x), the wake phase of q

whose bias vanishes as K grows, for θ whatever q is: Σ_k w̃_k ∇ log p(x, h_k) -> ∇ log p(x).

The values of these losses are no bounds. Their gradients are what is meant.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.errors import InputError


class Machine(NamedTuple):
    """Two models of one example x and what is hidden, h, any pytree.

    recognise(phi, key, x) -> h ~ q(h | x)
    log_q(phi, x, h) -> log q(h | x), a scalar
    dream(theta, key) -> (x, h) ~ p
    log_p(theta, x, h) -> log p(x, h), a scalar
    """

    recognise: Callable[[Any, PRNGKeyArray, Array], Any]
    log_q: Callable[[Any, Array, Any], Array]
    dream: Callable[[Any, PRNGKeyArray], tuple[Array, Any]]
    log_p: Callable[[Any, Array, Any], Array]


def wake_sleep(machine: Machine, theta: Any, phi: Any, key: PRNGKeyArray, x: Array) -> Float[Array, ""]:
    """The loss of one example: wake for θ and sleep for φ."""
    wake_key, sleep_key = jax.random.split(key)
    h = jax.lax.stop_gradient(machine.recognise(phi, wake_key, x))
    return sleep(machine, theta, phi, sleep_key) - machine.log_p(theta, x, h)


def sleep(machine: Machine, theta: Any, phi: Any, key: PRNGKeyArray) -> Float[Array, ""]:
    """-log q(h | x) of a dream: its gradient is that of φ alone."""
    return -machine.log_q(phi, *jax.lax.stop_gradient(machine.dream(theta, key)))


def reweighted_wake_sleep(
    machine: Machine, theta: Any, phi: Any, key: PRNGKeyArray, x: Array, num: int, sleeps: float = 0.5
) -> Float[Array, ""]:
    """The loss of one example by `num` draws. φ has `sleeps` of the sleep phase, and the rest of the wake phase.

    Raises:
        InputError: if num is no integer of at least 1, or sleeps is not in [0, 1].
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise InputError(f"num must be an integer of at least 1, the number of draws of h, not {num!r}")
    if not 0.0 <= sleeps <= 1.0:
        raise InputError(f"sleeps must be in [0, 1], the part of the sleep phase, not {sleeps!r}")
    wake_key, sleep_key = jax.random.split(key)
    keys = jax.random.split(wake_key, num)
    h = jax.lax.stop_gradient(jax.vmap(lambda key: machine.recognise(phi, key, x))(keys))
    log_p = jax.vmap(lambda h: machine.log_p(theta, x, h))(h)
    log_q = jax.vmap(lambda h: machine.log_q(phi, x, h))(h)
    weights = jax.nn.softmax(jax.lax.stop_gradient(log_p - log_q))
    wake = -(weights * (log_p + (1.0 - sleeps) * log_q)).sum()
    return wake + sleeps * sleep(machine, theta, phi, sleep_key) if sleeps else wake


def log_weight(machine: Machine, theta: Any, phi: Any, key: PRNGKeyArray, x: Array) -> tuple[Float[Array, ""], Any]:
    """log p(x, h) - log q(h | x) and h ~ q: E[w] = p(x), and E[log w] ≤ log p(x)."""
    h = machine.recognise(phi, key, x)
    return jnp.asarray(machine.log_p(theta, x, h) - machine.log_q(phi, x, h)), h
