"""The losses of a discrete chain by name, with one signature, so that a system need not know which it descends."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import registry
from diffjax.bounds import Decoder, bits_per_dim
from diffjax.losses.diffusion import hybrid, min_snr, p2, simple, vlb, weighted
from diffjax.predictions import Kind, Predict
from diffjax.processes import Gaussian, Variance
from diffjax.randomness import Keys


class Chain(NamedTuple):
    """A chain of `num_steps` steps: what its network predicts, its reverse variance, and p(x_0 | x_1)."""

    process: Gaussian
    num_steps: int
    kind: Kind
    variance: Variance
    decoder: Decoder | None


Loss = Callable[[Chain, Predict, Keys, Array, Array], Array]


def _simple(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return simple(chain.process, predict, key, x0, t, chain.kind)


def _min_snr(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return weighted(chain.process, predict, key, x0, t, min_snr(), chain.kind)


def _p2(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return weighted(chain.process, predict, key, x0, t, p2(), chain.kind)


def _vlb(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    s, num_steps, variance = _before(chain, t), chain.num_steps, chain.variance
    cost = vlb(chain.process, predict, key, x0, s, t, num_steps, variance, chain.decoder)
    return bits_per_dim(cost, x0.shape[1:])


def _hybrid(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return hybrid(chain.process, predict, key, x0, _before(chain, t), t, chain.num_steps, chain.decoder)


LOSSES: dict[str, Loss] = {"simple": _simple, "min_snr": _min_snr, "p2": _p2, "vlb": _vlb, "hybrid": _hybrid}


def chain_loss(
    name: str,
    process: Gaussian,
    num_steps: int,
    kind: Kind = "eps",
    variance: Variance = "posterior",
    decoder: Decoder | None = None,
) -> Callable[[Predict, Keys, Float[Array, "batch *event"], Float[Array, " batch"]], Float[Array, " batch"]]:
    """LOSSES[name] of a chain as (predict, key, x0, t) -> (batch,), "vlb" in bits per dimension. t is on the grid i/T.

    Raises:
        InputError: on an unknown name.
    """
    loss = registry.choose("loss", name, LOSSES)
    chain = Chain(process, num_steps, kind, variance, decoder)
    return lambda predict, key, x0, t: loss(chain, predict, key, x0, t)


def _before(chain: Chain, t: Array) -> Array:
    """The time s of the chain's step from t."""
    return chain.process.schedule.times[jnp.round(t * chain.num_steps).astype(int) - 1]  # type: ignore[attr-defined]
