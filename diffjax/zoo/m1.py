"""M1 of Kingma, Mohamed, Rezende & Welling 2014: a variational auto-encoder of bits whose code is made use of.

p(z) = N(0, I),   p(x | z) = B(decoder(z)),   q(z | x) = N(μ(x), σ²(x))
log p(x) ≥ E_q[log p(x | z)] - KL(q(z | x) ‖ p(z))                                                   (eq. 5)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.distributions import Normal
from diffjax.nets.autoencoders import Dense


class M1(NamedTuple):
    """init(key) -> params; encode(params, x (*batch, dim)) -> q(z | x); decode(params, z) -> log-odds (*batch, dim)."""

    init: Callable[[Array], Any]
    encode: Callable[[Any, Float[Array, "*batch dim"]], Normal]
    decode: Callable[[Any, Float[Array, "*batch latent"]], Float[Array, "*batch dim"]]


def m1(dim: int, latent: int, features: Sequence[int]) -> M1:
    """Of vectors of `dim` bits, with layers of `features` units on the way to z and the same ones back."""
    encoder, decoder = Dense(features, 2 * latent), Dense(features[::-1], dim)

    def init(key: Array) -> Any:
        keys = jax.random.split(key)
        return {
            "encoder": encoder.init(keys[0], jnp.zeros(dim))["params"],
            "decoder": decoder.init(keys[1], jnp.zeros(latent))["params"],
        }

    def encode(params: Any, x: Array) -> Normal:
        mean, log_variance = jnp.split(jnp.asarray(encoder.apply({"params": params["encoder"]}, x)), 2, axis=-1)
        return Normal(mean, jnp.exp(log_variance))

    def decode(params: Any, z: Array) -> Array:
        return jnp.asarray(decoder.apply({"params": params["decoder"]}, z))

    return M1(init, encode, decode)


def log_bits(x: Float[Array, "*#batch dim"], logits: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    """log p(x) of bits in nats, summed over the last axis."""
    return (x * logits - jax.nn.softplus(logits)).sum(-1)


def standard_kl(q: Normal) -> Float[Array, "*batch"]:
    """KL(q ‖ N(0, I)) in nats, summed over the last axis."""
    return q.kl(Normal(jnp.zeros(()), jnp.ones(()))).sum(-1)
