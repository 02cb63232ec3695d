"""Networks as `Conditionals`: a `Causal` has init(key) -> params, and conditionals(params, order, ...).

They are also priors over the codes of other models. A `condition` (batch, height, width, features) is known from the
beginning, and aligned with the places.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import registry
from diffjax.autoregressive import Conditionals
from diffjax.errors import InputError
from diffjax.nets.causal_transformer import CausalTransformer
from diffjax.nets.made import NADE, CategoricalMADE, DeepNADE
from diffjax.nets.pixel_cnn import PixelCNN


class Causal(NamedTuple):
    """A network of arrays with `places` entries of `num_classes` classes.

    init(key, condition=None) -> params; a condition is given where one will be given later
    conditionals(params, order, seed=0, condition=None) -> Conditionals. `seed` chooses among the ways to connect units,
        where a network has several
    any_order: whether it takes every order; otherwise the raster order alone
    sets: None, or (params, x (batch, places), seen (batch, places)) -> logits of every place from any set of places
    """

    places: int
    num_classes: int
    init: Callable[..., Any]
    conditionals: Callable[..., Conditionals]
    any_order: bool = True
    sets: Callable[[Any, Array, Array], Array] | None = None


def transformer(shape: tuple[int, ...], num_classes: int, width: int = 64, depth: int = 3, heads: int = 4) -> Causal:
    """A causal transformer."""
    places = int(np.prod(shape))
    net: Any = CausalTransformer(places, num_classes, width, depth, heads)

    def flat(condition: Array | None) -> Array | None:
        if condition is None:
            return None
        return condition.reshape(len(condition), -1, condition.shape[-1])

    def init(key: Array, condition: Array | None = None) -> Any:
        return net.init(key, jnp.zeros((1, places), int), jnp.arange(places), flat(condition))

    def conditionals(params: Any, order: Any, seed: Any = 0, condition: Array | None = None) -> Conditionals:
        order, given = jnp.asarray(order), flat(condition)
        return Conditionals(
            order,
            num_classes,
            lambda x: net.apply(params, x, order, given),
            lambda batch: net.apply(params, batch, method="start"),
            lambda state, i, previous: net.apply(params, state, i, previous, order, given, method="step"),
        )

    return Causal(places, num_classes, init, conditionals)


def made(shape: tuple[int, ...], num_classes: int, features: tuple[int, ...], direct: bool = True) -> Causal:
    """Masked dense layers."""
    places = int(np.prod(shape))
    net: Any = CategoricalMADE(places, num_classes, features, direct)

    def init(key: Array, condition: Array | None = None) -> Any:
        _no_condition("made", condition)
        return net.init(key, jnp.zeros((1, places), int), jnp.arange(places))

    def conditionals(params: Any, order: Any, seed: Any = 0, condition: Array | None = None) -> Conditionals:
        order = jnp.asarray(order)
        return Conditionals(
            order,
            num_classes,
            lambda x: net.apply(params, x, order, seed),
            lambda batch: net.apply(params, batch, method="start"),
            lambda state, i, previous: net.apply(params, state, i, previous, order, seed, method="step"),
        )

    return Causal(places, num_classes, init, conditionals)


def nade(shape: tuple[int, ...], num_classes: int, units: int) -> Causal:
    """A shared first layer that sees one place more at each step."""
    places = int(np.prod(shape))
    net: Any = NADE(places, num_classes, units)

    def init(key: Array, condition: Array | None = None) -> Any:
        _no_condition("nade", condition)
        return net.init(key, jnp.zeros((1, places), int), jnp.arange(places))

    def conditionals(params: Any, order: Any, seed: Any = 0, condition: Array | None = None) -> Conditionals:
        order = jnp.asarray(order)
        return Conditionals(
            order,
            num_classes,
            lambda x: net.apply(params, x, order),
            lambda batch: net.apply(params, batch, method="start"),
            lambda state, i, previous: net.apply(params, state, i, previous, order, method="step"),
        )

    return Causal(places, num_classes, init, conditionals)


def deep_nade(shape: tuple[int, ...], num_classes: int, features: tuple[int, ...]) -> Causal:
    """A network of any set of places that are seen: one evaluation for each place."""
    places = int(np.prod(shape))
    net: Any = DeepNADE(num_classes, features)

    def init(key: Array, condition: Array | None = None) -> Any:
        _no_condition("deep_nade", condition)
        return net.init(key, jnp.zeros((1, places), int), jnp.zeros((1, places)))

    def conditionals(params: Any, order: Any, seed: Any = 0, condition: Array | None = None) -> Conditionals:
        return of_sets(lambda x, seen: net.apply(params, x, seen), jnp.asarray(order), num_classes)

    return Causal(places, num_classes, init, conditionals, sets=net.apply)


def of_sets(network: Callable[[Array, Array], Array], order: Array, num_classes: int) -> Conditionals:
    """Conditionals of a network of any set of places, (x (batch, places), seen (batch, places)) -> (batch, places, K).

    It may look at x only where `seen` is 1.
    """
    places = len(order)

    def logits(x: Array) -> Array:
        def place(i: Array) -> Array:
            seen = (jnp.argsort(order) < i).astype(float)
            return network(x, jnp.broadcast_to(seen, x.shape))[:, order[i]]

        found = jax.lax.map(place, jnp.arange(places))
        return jnp.zeros((*x.shape, num_classes)).at[:, order].set(found.swapaxes(0, 1))

    def init(batch: int) -> tuple[Array, Array]:
        return jnp.zeros((batch, places), jnp.int32), jnp.zeros((batch, places))

    def step(state: tuple[Array, Array], i: Array, previous: Array) -> tuple[tuple[Array, Array], Array]:
        x, seen = state
        before = order[i - 1]
        x = jnp.where(i > 0, x.at[:, before].set(previous.astype(x.dtype)), x)
        seen = jnp.where(i > 0, seen.at[:, before].set(1.0), seen)
        return (x, seen), network(x, seen)[:, order[i]]

    return Conditionals(order, num_classes, logits, init, step)


def pixel_cnn(
    shape: tuple[int, ...], num_classes: int, features: int = 32, depth: int = 3, mixtures: int = 5
) -> Causal:
    """PixelCNN++ of images (H, W, C), or of a map of codes (H, W), for which `mixtures` should be 0."""
    if len(shape) not in (2, 3):
        raise InputError(f"net.name='pixel_cnn' is of images (H, W, C) or maps (H, W), not of data.shape={shape}")
    size: Any = (*shape, 1)[:3]
    places, (_, width, channels) = int(np.prod(size)), size
    net: Any = PixelCNN(size, num_classes, features, depth, mixtures)

    def init(key: Array, condition: Array | None = None) -> Any:
        return net.init(key, jnp.zeros((1, places), int), condition)

    def conditionals(params: Any, order: Any, seed: Any = 0, condition: Array | None = None) -> Conditionals:
        def step(state: Any, i: Array, previous: Array) -> tuple[Any, Array]:
            # The network works only where a row or a pixel begins.
            pixel, channel = i // channels, i % channels
            row, column = pixel // width, pixel % width
            state = net.apply(params, state, i, previous, method="enter")
            known = None if condition is None else condition[:, row]
            begins = (channel == 0) & (column == 0)
            state = jax.lax.cond(begins, lambda s: net.apply(params, s, known, method="new_row"), lambda s: s, state)
            state = jax.lax.cond(
                channel == 0, lambda s: net.apply(params, s, column, method="new_pixel"), lambda s: s, state
            )
            return state, net.apply(params, state, i, method="read")

        return Conditionals(
            jnp.arange(places),
            num_classes,
            lambda x: net.apply(params, x, condition),
            lambda batch: net.apply(params, batch, method="start"),
            step,
        )

    return Causal(places, num_classes, init, conditionals, any_order=False)


def _no_condition(name: str, condition: Array | None) -> None:
    if condition is not None:
        raise InputError(f"net.name={name!r} takes no condition: choose transformer or pixel_cnn")


NETWORKS: dict[str, Callable[..., Causal]] = {
    "transformer": transformer,
    "made": made,
    "nade": nade,
    "deep_nade": deep_nade,
    "pixel_cnn": pixel_cnn,
}


def of_config(net: Any, shape: tuple[int, ...], num_classes: int) -> Causal:
    """The network that the section `net` names.

    Raises:
        InputError: on an unknown name, a missing field, or data that it cannot take.
    """
    factory = registry.choose("net.name", net.name, NETWORKS)
    settings = {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in net.items()}
    return registry.build(factory, shape, num_classes, settings=settings)
