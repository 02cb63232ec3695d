"""Exact draws stay exact after one step of a Markov chain: the test that every kernel takes.

Each of n independent exact draws x takes one step to x'. If the kernel leaves their law alone, E[f(x') - f(x)] = 0 for
every f, and the n differences tell their own standard error. They are paired, so that what x' shares with x cancels:
a small step shows its bias as clearly as a large one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from diffjax.mcmc import Kernel
from diffjax.reference import GaussianMixture

NUM_DRAWS = 20_000
LIMIT = 5.0  # standard errors

MIXTURE = GaussianMixture(
    weights=jnp.array([0.6, 0.4]),
    means=jnp.array([[-1.0, 0.5], [1.5, -0.5]]),
    covs=jnp.array([[[1.0, 0.6], [0.6, 0.8]], [[0.3, -0.1], [-0.1, 0.5]]]),
)

_PRECISIONS = jnp.linalg.inv(MIXTURE.covs)
_LOG_SCALES = jnp.log(MIXTURE.weights) - 0.5 * jnp.linalg.slogdet(2 * jnp.pi * MIXTURE.covs)[1]


def log_density(x: Array) -> Array:
    """MIXTURE.log_prob, for one x, without triangular solves: thousands of chains of those take minutes."""
    centred = x - MIXTURE.means
    return jax.nn.logsumexp(_LOG_SCALES - 0.5 * jnp.einsum("ki,kij,kj->k", centred, _PRECISIONS, centred))


score = jax.grad(log_density)


def z_scores(kernel: Kernel, key: Array, exact: Any) -> Array:
    """E[f(x') - f(x)] in standard errors, for some twenty functions f: (num,). Sound kernels stay within LIMIT.

    f are coordinates, their products, tanh³, cosines and the events of lying below five quantiles.
    A kernel that never moves gives NaN, which is not within any limit.

    Args:
        exact: (n, *event), or a pytree of such: independent draws from the law that the kernel should keep.
    """
    num = jax.tree.leaves(exact)[0].shape[0]
    # Compiled with the draws as an argument: as constants XLA would sort them at compile time, for 20 seconds.
    states = jax.jit(lambda keys, x: jax.vmap(kernel.step)(keys, jax.vmap(kernel.init)(x))[0])(
        jax.random.split(key, num), exact
    )
    flatten = jax.vmap(lambda x: ravel_pytree(x)[0].astype(float))
    before, after = flatten(exact), flatten(states.position)
    centre, scale = before.mean(0), before.std(0)
    before, after = (before - centre) / scale, (after - centre) / scale
    quantiles = jnp.quantile(before, jnp.array([0.1, 0.3, 0.5, 0.7, 0.9]), axis=0)
    difference = _functions(after, quantiles) - _functions(before, quantiles)
    return difference.mean(0) / (difference.std(0) / jnp.sqrt(num))


def _functions(x: Array, quantiles: Array) -> Array:
    below = [x < quantile for quantile in quantiles]
    i, j = jnp.triu_indices(x.shape[1])
    return jnp.concatenate([x, x[:, i] * x[:, j], jnp.tanh(x) ** 3, jnp.cos(2 * x), *below], axis=1)
