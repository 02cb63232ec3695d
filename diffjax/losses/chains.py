"""The losses of a discrete chain by name. They share one signature: a system need not know which loss it minimises."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import registry
from diffjax.bounds import Decoder, bits_per_dim
from diffjax.losses.diffusion import hybrid, simple, vlb, weighted
from diffjax.losses.weights import WEIGHTS
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
DEFAULTS: Mapping[str, Any] = {}


def _simple(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return simple(chain.process, predict, key, x0, t, chain.kind)


def _vlb(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    s, num_steps, variance = _before(chain, t), chain.num_steps, chain.variance
    cost = vlb(chain.process, predict, key, x0, s, t, num_steps, variance, chain.decoder)
    return bits_per_dim(cost, x0.shape[1:])


def _hybrid(chain: Chain, predict: Predict, key: Keys, x0: Array, t: Array) -> Array:
    return hybrid(chain.process, predict, key, x0, _before(chain, t), t, chain.num_steps, chain.decoder)


LOSSES: dict[str, Loss] = {"simple": _simple, "vlb": _vlb, "hybrid": _hybrid}  # beside those weighted by `WEIGHTS`


def chain_loss(
    name: str,
    process: Gaussian,
    num_steps: int,
    kind: Kind = "eps",
    variance: Variance = "posterior",
    decoder: Decoder | None = None,
    settings: Mapping[str, Any] = DEFAULTS,
) -> Callable[[Predict, Keys, Float[Array, "batch *event"], Float[Array, " batch"]], Float[Array, " batch"]]:
    """A loss of a chain as (predict, key, x0, t) -> (batch,), "vlb" in bits per dimension. t is on the grid i/T.

    Args:
        name: a name of `LOSSES`, or one of `WEIGHTS` for a `weighted` loss.
        settings: e.g. a section of a configuration. The weight takes those that it names.

    Raises:
        InputError: on an unknown name, or if a setting that the weight needs is missing.
    """
    registry.choose("loss", name, LOSSES | WEIGHTS)
    chain = Chain(process, num_steps, kind, variance, decoder)
    if name in LOSSES:
        return lambda predict, key, x0, t: LOSSES[name](chain, predict, key, x0, t)
    weight = registry.build(WEIGHTS[name], settings=settings)
    return lambda predict, key, x0, t: weighted(process, predict, key, x0, t, weight, kind)


def _before(chain: Chain, t: Array) -> Array:
    """The time s of the chain's step from t."""
    return chain.process.schedule.times[jnp.round(t * chain.num_steps).astype(int) - 1]  # type: ignore[attr-defined]
