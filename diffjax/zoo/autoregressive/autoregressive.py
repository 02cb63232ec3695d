"""Autoregressive models of levels: exact log-likelihoods, in one order, in several, or in all of them, as a Model.

one order     L = -log p_o(x)
M orders      each step descends -log p_o(x) of one of them; the model is their mixture, p(x) = (1/M) Σ_o p_o(x)
              (MADE's order-agnostic and connectivity-agnostic training, Germain et al. 2015)
all orders    L = D/(D - d) Σ_{i > d} -log p(x_{o(i)} | x_{o(1)} .. x_{o(d)}),  o and d = 0 .. D - 1 uniform:
              unbiased for the mean over all orders (Uria et al. 2014). The model is a mixture of M orders, too
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import autoregressive as ar
from diffjax import coding, randomness
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.code import Code
from diffjax.memory import Memory
from diffjax.zoo.autoregressive.networks import Causal, of_config
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.model import Batch, Model, bound_of, image_of

SHOWN = 8  # examples that are completed


def autoregressive(
    network: Causal,
    shape: tuple[int, ...],
    orders: Sequence[np.ndarray],
) -> Model:
    """A model of arrays of `shape` with classes 0 .. K - 1. As images they have the levels 2k/(K - 1) - 1.

    Args:
        network: of D = prod(shape) places. One with `sets` is trained for all orders at once.
        orders: one, or the M of a mixture. Order m also has its own connections of the units, `seed=m`.
    """
    num_classes, places = network.num_classes, network.places
    table = jnp.stack([jnp.asarray(ar.check_order(order, places)) for order in orders])
    for order in orders:
        if not network.any_order and (np.asarray(order) != np.arange(places)).any():
            raise InputError("this network takes the raster order alone: set ar.orders=1 and ar.order='raster'")

    def levels(batch: Batch) -> Array:
        """Classes (batch, places)."""
        x = jnp.asarray(image_of(batch))
        if x.dtype != jnp.uint8:
            x = jnp.round((x + 1.0) * 0.5 * (num_classes - 1)) if len(shape) == 3 else jnp.round(x)
        return x.reshape(len(x), -1).astype(jnp.int32)

    def conditionals(params: Any, m: Any = 0) -> ar.Conditionals:
        return network.conditionals(params, table[m], m)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x = levels(batch)
        if network.sets is not None:
            return _of_a_set(partial(network.sets, params), key, x) / places
        # The whole batch has one order: the masks of the weights are made once.
        m = batch["order"][0] if isinstance(batch, dict) and "order" in batch else 0
        return -ar.log_prob(conditionals(params, m), x) / places

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        x = levels(batch)
        each = jax.lax.map(lambda m: ar.log_prob(conditionals(params, m), x), jnp.arange(len(table)))
        return {"nll": jnp.log(float(len(table))) - jax.nn.logsumexp(each, axis=0)}

    def as_data(x: Array) -> Array:
        x = x.reshape(len(x), *shape).astype(float)
        return x * (2.0 / (num_classes - 1)) - 1.0 if len(shape) == 3 else x

    def sample(params: Any, key: Array, num: int) -> Array:
        """Of a mixture each sample has an order of its own, each order about as often. The key chooses them."""
        parts = min(len(table), num)
        chosen = jax.random.permutation(jax.random.fold_in(key, parts), len(table))[:parts]
        each = -(-num // parts)

        def part(of: tuple[Array, Array]) -> Array:
            m, key = of
            return ar.sample(conditionals(params, m), key, each)

        drawn = jax.lax.map(part, (chosen, jax.random.split(key, parts)))
        return as_data(drawn.reshape(parts * each, places)[:num])

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """Rows: examples, what is kept of them (the first half of the places), and three ways to go on."""
        if len(shape) != 3 or not (np.asarray(table[0]) == np.arange(places)).all():
            return {}
        x, half = levels(batch)[:SHOWN], places // 2
        kept = jnp.where(jnp.arange(places) < half, x, 0)
        again = [ar.sample(conditionals(params), key, len(x), x, half) for key in jax.random.split(key, 3)]
        return {"completed": Grid(jnp.concatenate([as_data(rows) for rows in (x, kept, *again)]), len(x))}

    several = len(table) > 1 and network.sets is None
    # A mixture of orders has no conditionals of its own.
    codes = (Code(lambda params: coding.Autoregressive(conditionals, params, shape)),) if len(table) == 1 else ()
    return Model(
        network.init,
        loss,
        bound_of(terms),
        sample,
        memory=_orders(len(table)) if several else None,
        measures=(Bound(terms), *codes),
        figures=Figures(own=figures),
    )


def _of_a_set(network: Any, key: randomness.Keys, x: Array) -> Array:
    """D/(D - d) Σ over the places that are not seen, d of which are, in a random order: (batch,) in nats."""
    places = x.shape[1]

    def one(key: Array) -> tuple[Array, Array]:
        order_key, number_key = jax.random.split(key)
        d = jax.random.randint(number_key, (), 0, places)
        return (jax.random.permutation(order_key, places) < d).astype(float), d

    seen, d = jax.vmap(one)(randomness.each(key, len(x)))
    nll = -ar.chosen(network(x, seen), x)
    return places / (places - d) * ((1.0 - seen) * nll).sum(1)


def _orders(num: int) -> Memory:
    """Remembers nothing; draws one of `num` orders for the whole batch."""
    return Memory(
        init=lambda params: (),
        draw=lambda memory, key, size: {"order": jnp.broadcast_to(jax.random.randint(key, (), 0, num), (size,))},
        update=lambda memory, key, params, batch, losses: memory,
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, ar, net}`, see configs/pixelcnn_digits.py and configs/made_mnist.py.

    Raises:
        InputError: on data without levels, an unknown network or order, or an order that is no permutation.
    """
    setting, shape, num_classes = config.ar, tuple(config.data.shape), config.data.levels
    if num_classes < 2:
        raise InputError(
            "an autoregressive model here is of levels: data.levels=0 stands for real numbers; give levels"
        )
    if type(setting.orders) is not int or setting.orders < 1:
        raise InputError(f"ar.orders = {setting.orders!r} must be an integer of at least 1")
    network = of_config(config.net, shape, num_classes)
    orders = _chosen_orders(setting.order, setting.orders, network.places)
    return autoregressive(network, shape, orders)


def _chosen_orders(order: Any, num: int, places: int) -> list[np.ndarray]:
    if isinstance(order, tuple | list):
        return [ar.check_order(order, places)]
    if order == "raster":
        return num * [np.arange(places)]
    if order == "random":
        return [np.random.default_rng(m).permutation(places) for m in range(num)]
    raise InputError(f"ar.order must be 'raster', 'random' or a permutation of the places, not {order!r}")
