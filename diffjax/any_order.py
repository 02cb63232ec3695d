"""The masked model as an autoregressive one: any order, one place after the other, each with one pass of the network.

A masked model knows p̂(x_i | the places that are not masked) for all sets of places. In the order o its log-likelihood
is

    log p_o(x) = Σ_i log p̂(x_{o(i)} | x_{o(1)}, ..., x_{o(i-1)})

and the bound of masked diffusion in continuous time is the mean of -log p_o over all orders (Hoogeboom et al. 2022).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax.autoregressive import Conditionals
from diffjax.errors import InputError
from diffjax.predictions import Predict
from diffjax.processes import Categorical
from diffjax.schedules import time_of


def masked_conditionals(
    process: Categorical, predict: Predict, shape: tuple[int, ...], order: ArrayLike
) -> Conditionals:
    """The conditionals of a masked model in one order of its places.

    The state is the partly masked array. With n of D places masked, the network is told the time at which a share n/D
    is masked.

    Args:
        process: masked.
        shape: of an example; places are its entries in C order.
        order: a permutation of 0 .. D - 1.

    Raises:
        InputError: if the process is not masked, or the order no permutation of the places.
    """
    if not process.masked:
        raise InputError("masked_conditionals needs a masked process: categorical(..., kind='masked')")
    num, mask = math.prod(shape), process.num_classes
    given = np.asarray(order)
    if given.shape != (num,) or sorted(given.tolist()) != list(range(num)):
        raise InputError(f"order must be a permutation of 0 .. {num - 1}, each place once, not {given}")
    places = jnp.asarray(given)
    share = jnp.arange(num, 0, -1) / num  # that is masked before each place
    last = jnp.minimum(share, 1 - 1e-6)
    times = jnp.where(share == 1, 1.0, time_of(process.schedule, jnp.log1p(-last) - jnp.log(last)))

    def at_place(x: Array, i: Array) -> Array:
        """(batch, K), the logits of place order[i] of arrays (batch, D) of which the first i places are known."""
        images = x.reshape(-1, *shape)
        t = jnp.full(len(images), times[i])
        beliefs = process.beliefs(predict(images, t), images, t)
        return beliefs.reshape(len(x), num, -1)[:, places[i]]

    def logits(x: Array) -> Array:
        rank = jnp.zeros(num, int).at[places].set(jnp.arange(num))

        def one(i: Array) -> Array:
            return at_place(jnp.where(rank < i, x, mask), i)

        found = jax.lax.map(one, jnp.arange(num))
        return jnp.zeros((len(x), num, mask)).at[:, places].set(found.swapaxes(0, 1))

    def init(batch: int) -> Array:
        return jnp.full((batch, num), mask, jnp.int32)

    def step(state: Any, i: Array, previous: Array) -> tuple[Any, Array]:
        before = places[jnp.maximum(i - 1, 0)]
        state = state.at[:, before].set(jnp.where(i > 0, previous.astype(jnp.int32), state[:, before]))
        return state, at_place(state, i)

    step_: Callable[[Any, Array, Array], tuple[Any, Array]] = step
    return Conditionals(places, mask, logits, init, step_)
