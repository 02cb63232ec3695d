"""Autoregressive models: the probability of an array is a product of conditionals, one place after the other.

    p(x) = Π_{i=1..D} p(x_{o(i)} | x_{o(1)}, ..., x_{o(i-1)}),    o an order, a permutation of the D places

Places are the entries of an array in C order: of an image (H, W, C) row by row, and channel by channel within a pixel.
Every entry is an integer class 0 .. K - 1. `Conditionals` is what a network gives. All else is made of it: the exact
log-likelihood, samples, and the code of an array (`coding`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax.dtypes import AnyArray
from diffjax.errors import InputError


class Conditionals(NamedTuple):
    """The conditionals of a model, whose parameters are closed over. All logits are unnormalised log-probabilities.

    order: (D,), the place that comes i-th is order[i]
    num_classes: K
    logits(x (batch, D)) -> (batch, D, K), those of all places in one pass: [:, d] belongs to place d, and depends only
        on the places before it in the order
    init(batch) -> state, what is remembered before the first place, for `batch` arrays
    step(state, i, previous (batch,)) -> state, (batch, K): the logits of place order[i], where `previous` is the class
        at order[i - 1]. At i = 0 there is none, and `previous` is ignored. The work of earlier steps is in the state
    """

    order: Int[AnyArray, " places"]
    num_classes: int
    logits: Callable[[Array], Array]
    init: Callable[[int], Any]
    step: Callable[[Any, Array, Array], tuple[Any, Array]]


def log_prob(conditionals: Conditionals, x: Int[Array, "batch places"]) -> Float[Array, " batch"]:
    """log p(x) in nats, exact, in one pass."""
    return chosen(conditionals.logits(x), x).sum(-1)


def chosen(logits: Float[Array, "*batch classes"], x: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """log p(x) in nats of each entry under its own logits."""
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return jnp.take_along_axis(log_probs, x[..., None], axis=-1)[..., 0]


def sample(
    conditionals: Conditionals,
    key: PRNGKeyArray,
    num: int,
    given: Int[Array, "num places"] | None = None,
    num_given: int = 0,
) -> Int[Array, "num places"]:
    """Draws from p(x), in one scan over the places that keeps the state of the network.

    Args:
        given, num_given: the first `num_given` places of the order are taken from `given`, and the others drawn from
            their law given these.
    """

    def place(carry: tuple[Any, Array], i: Array) -> tuple[tuple[Any, Array], Array]:
        state, previous = carry
        state, logits = conditionals.step(state, i, previous)
        drawn = jax.random.categorical(jax.random.fold_in(key, i), logits).astype(jnp.int32)
        if given is not None:
            drawn = jnp.where(i < num_given, given[:, order[i]].astype(jnp.int32), drawn)
        return (state, drawn), drawn

    order = jnp.asarray(conditionals.order)
    start = (conditionals.init(num), jnp.zeros(num, jnp.int32))
    _, drawn = jax.lax.scan(place, start, jnp.arange(len(order)))
    return jnp.zeros((num, len(order)), jnp.int32).at[:, order].set(drawn.T)


def logits_by_steps(conditionals: Conditionals, x: Int[Array, "batch places"]) -> Float[Array, "batch places classes"]:
    """What `Conditionals.logits` gives, by the steps of `sample`: one place after the other, with the state."""

    def place(state: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
        i, previous = at
        return conditionals.step(state, i, previous)

    order = jnp.asarray(conditionals.order)
    in_order = x[:, order].T
    previous = jnp.concatenate([jnp.zeros_like(in_order[:1]), in_order[:-1]])
    _, logits = jax.lax.scan(place, conditionals.init(len(x)), (jnp.arange(len(order)), previous))
    return jnp.zeros_like(logits.swapaxes(0, 1)).at[:, order].set(logits.swapaxes(0, 1))


def check_order(order: Any, places: int) -> np.ndarray:
    """`order` as an array (places,).

    Raises:
        InputError: if it is no permutation of 0 .. places - 1.
    """
    found = np.asarray(order)
    if found.shape != (places,) or sorted(found.tolist()) != list(range(places)):
        raise InputError(f"an order of {places} places must have each of 0 .. {places - 1} once, not {found.tolist()}")
    return found
