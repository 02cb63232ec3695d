"""Normalizing flows after a Gaussian posterior. The encoder gives their parameters for every example.

planar, radial   the encoder gives all parameters of every layer (Rezende & Mohamed 2015, section 4.2)
iaf              masked networks. The encoder gives them a context. The order is reversed between layers
                 (Kingma et al. 2016, algorithm 1)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import flows
from diffjax.errors import InputError
from diffjax.nets.masked import MADE

STILL = 0.5413249  # softplus⁻¹(1): a planar layer with wᵀu of this value is the identity
SMALL = 0.1
NAMES = ("none", "planar", "radial", "iaf")


class Amortised(NamedTuple):
    """outputs: the count of numbers that the encoder gives for it.
    init(key) -> params, those that all examples share.
    flow(params, numbers (*batch, outputs)) -> Flow on (..., *batch, dim).
    """

    outputs: int
    init: Callable[[Array], Any]
    flow: Callable[[Any, Array], flows.Flow]


IDENTITY = flows.Flow(*2 * [lambda z: (z, jnp.zeros(z.shape[:-1], z.dtype))])
NO_FLOW = Amortised(0, lambda key: (), lambda params, numbers: IDENTITY)


def amortised(name: str, length: int, dim: int, units: int) -> Amortised:
    """`length` layers on vectors of `dim` entries. `units` are those of the masked networks and of their context.

    Raises:
        InputError: on an unknown name, or if there is no layer.
    """
    if name not in NAMES:
        raise InputError(f"vae.flow must be one of {', '.join(NAMES)}, not {name!r}")
    if not isinstance(length, int) or length < 1:
        raise InputError(f"vae.flow_length must be an integer of at least 1, not {length!r}")

    if name == "none":
        return NO_FLOW
    if name == "iaf":
        return _inverse_autoregressive(length, dim, units)

    def layer(p: Float[Array, "*batch numbers"]) -> flows.Flow:
        if name == "planar":
            return flows.planar(p[..., :dim], p[..., dim : 2 * dim], p[..., -1])
        return flows.radial(p[..., :dim], p[..., dim], p[..., dim + 1])

    def init(key: Array) -> Any:
        if name == "radial":  # with equal α and gap it is the identity
            return jnp.zeros((length, dim + 2))
        w = jax.random.normal(key, (length, dim)) / jnp.sqrt(dim)
        u = STILL * w / (w * w).sum(-1, keepdims=True)
        return jnp.concatenate([u, w, jnp.zeros((length, 1))], -1)

    def flow(params: Any, numbers: Array) -> flows.Flow:
        layers = params + SMALL * numbers.reshape(*numbers.shape[:-1], *params.shape)
        return flows.stacked(layer, jnp.moveaxis(layers, -2, 0))

    return Amortised(length * (2 * dim + 1 if name == "planar" else dim + 2), init, flow)


def _inverse_autoregressive(length: int, dim: int, units: int) -> Amortised:
    net = MADE((units, units))

    def init(key: Array) -> Any:
        return [net.init(key, jnp.zeros(dim), jnp.zeros(units))["params"] for key in jax.random.split(key, length)]

    def flow(params: Any, context: Array) -> flows.Flow:
        def conditioner(p: Any) -> Callable[[Array], tuple[Array, Array]]:
            def conditions(z: Array) -> tuple[Array, Array]:
                wide = jnp.broadcast_to(context, (*z.shape[:-1], units))
                m, s = jnp.asarray(net.apply({"params": p}, z, wide))
                return m, s

            return conditions

        parts = [part for p in params for part in (flows.autoregressive(conditioner(p)), flows.reverse)]
        return flows.chain(parts)

    return Amortised(units, init, flow)
