"""Relative-entropy coding: a draw from q, told by one integer, for a receiver who knows p (Li & El Gamal 2018).

    x_1, x_2, ... ~ p and arrival times T_1 < T_2 < ... of a Poisson process, the same for both sides
    k = argmin_k T_k p(x_k)/q(x_k),    x_k ~ q,    E log2 k ≤ KL(q ‖ p) + 1 bit or so

Under a power law k costs at most KL + log2(KL + 1) + 5 bits. The search takes as many candidates as exp(KL) and more.
Here it ends after `num` of them: a draw whose KL exceeds log2(num) is then not quite from q (Theis & Yosri 2022).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key

from diffjax.coding.stack import Law, categorical
from diffjax.distributions import Normal

CHUNK = 512  # candidates drawn at once


def _chunk(key: Array, chunk: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Noise (CHUNK, *shape) of candidates, and the increments (CHUNK,) of the arrival times."""
    noise_key, time_key = jax.random.split(jax.random.fold_in(key, chunk))
    return jax.random.normal(noise_key, (CHUNK, *shape)), jax.random.exponential(time_key, (CHUNK,))


@partial(jax.jit, static_argnums=3)
def choose(keys: Key[Array, " batch"], q: Normal, p: Normal, num: int) -> Int[Array, " batch"]:
    """The index of the candidate for each example, 0 .. num - 1. `num` is a multiple of CHUNK."""

    def one(given: tuple[Array, Normal, Normal]) -> Array:
        key, q, p = given
        std, axes = jnp.sqrt(p.variance), tuple(range(1, q.mean.ndim + 1))

        def chunk(best: tuple[Array, Array, Array], at: Array) -> tuple[tuple[Array, Array, Array], None]:
            least, index, time = best
            noise, steps = _chunk(key, at, q.mean.shape)
            times = time + jnp.cumsum(steps)
            x = p.mean + std * noise
            cost = jnp.log(times) - (q.log_prob(x) - p.log_prob(x)).sum(axes)
            here = jnp.argmin(cost)
            better = cost[here] < least
            found = jnp.where(better, cost[here], least), jnp.where(better, at * CHUNK + here, index)
            return (*found, times[-1]), None

        start = jnp.float32(jnp.inf), jnp.int32(0), jnp.float32(0.0)
        return jax.lax.scan(chunk, start, jnp.arange(num // CHUNK, dtype=jnp.int32))[0][1]

    return jax.lax.map(one, (keys, q, p))


@jax.jit
def candidate(keys: Key[Array, " batch"], p: Normal, index: Int[Array, " batch"]) -> Float[Array, "batch *shape"]:
    """The candidates of these indices."""

    def one(given: tuple[Array, Normal, Array]) -> Array:
        key, p, index = given
        noise, _ = _chunk(key, index // CHUNK, p.mean.shape)
        return p.mean + jnp.sqrt(p.variance) * noise[index % CHUNK]

    return jax.lax.map(one, (keys, p, index))


def power_law(exponent: float, classes: int, num: int) -> Law:
    """P(k) ∝ (k + 1)^-exponent of k = 0 .. classes - 1, the same for `num` symbols."""
    row = -exponent * np.log(np.arange(1, classes + 1))
    return categorical(np.broadcast_to(row, (num, classes)))


def best_exponent(index: np.ndarray, classes: int, grid: np.ndarray) -> int:
    """Which exponent of the grid makes these indices cheapest."""
    logs, place = np.log(np.arange(1, classes + 1)), np.log(np.asarray(index) + 1.0)
    costs = [exponent * place.mean() + np.log(np.exp(-exponent * logs).sum()) for exponent in grid]
    return int(np.argmin(costs))
