"""Deep Boltzmann machines (Salakhutdinov and Hinton 2009): layers of bits v = x_0 .. x_L, edges between neighbours.

    E(x) = -Σ_l b_l·x_l - Σ_l x_l·W_l x_{l+1}

The even layers given the odd ones are independent bits, and the odd ones given the even ones. So the machine is a
restricted one, whose two layers are those: `bipartite`. Its Gibbs chains, its log Z and its free energy are therefore
those of `machine`, `contrastive` and `partition`.

Given v, the posterior is not independent. Mean field finds q(x_1 .. x_L) = Π_l Π_j B(μ_lj) that makes the bound

    log p(v) ≥ -E(v, μ) + H(q) - log Z

greatest, coordinate by coordinate: odd layers given even ones, then even ones given odd ones. It never falls.

The parameters are a dict: "weights", a list of W_l (units_l, units_{l+1}), and "biases", a list of b_l (units_l,).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.distributions import Bernoulli
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul

DeepParams = Mapping[str, Any]


def deep_init(key: PRNGKeyArray, units: Sequence[int], scale: float = 0.01) -> dict[str, list[Array]]:
    """Weights N(0, scale²), biases 0, of layers of `units`, v first.

    Raises:
        InputError: if there are fewer than two layers.
    """
    if len(units) < 2:
        raise InputError(f"units must be those of v and of at least one hidden layer, not {tuple(units)}")
    keys = jax.random.split(key, len(units) - 1)
    weights = [scale * jax.random.normal(k, pair) for k, pair in zip(keys, itertools.pairwise(units), strict=False)]
    return {"weights": weights, "biases": [jnp.zeros(num) for num in units]}


def bipartite(params: DeepParams) -> dict[str, Array]:
    """The restricted machine whose visible units are x_1, x_3 ..., and whose hidden ones are v, x_2, x_4 ...

    So F of its visible units sums v out, and a chain is moved by `contrastive.run_chains`.
    """
    weights, biases = params["weights"], params["biases"]
    odd, even = range(1, len(biases), 2), range(0, len(biases), 2)

    def edges(i: int, j: int) -> Array:
        """Of layer i, odd, and j, even."""
        if abs(i - j) != 1:
            return jnp.zeros((biases[i].size, biases[j].size), weights[0].dtype)
        return weights[i] if i < j else weights[j].T

    return {
        "weights": jnp.concatenate([jnp.concatenate([edges(i, j) for j in even], 1) for i in odd]),
        "visible": jnp.concatenate([biases[i] for i in odd]),
        "hidden": jnp.concatenate([biases[j] for j in even]),
    }


def odd_layers(layers: Sequence[Array]) -> Array:
    """x_1, x_3 ... of all layers, side by side: what `bipartite` calls visible."""
    return jnp.concatenate(layers[1::2], -1)


def deep_energy(params: DeepParams, layers: Sequence[Float[Array, "*batch units"]]) -> Float[Array, "*batch"]:
    """E of all layers, or of their means under a law that factorises."""
    biases, weights = params["biases"], params["weights"]
    alone = [(x * b).sum(-1) for x, b in zip(layers, biases, strict=True)]
    edges = [(matmul(x, w) * y).sum(-1) for x, w, y in zip(layers, weights, layers[1:], strict=False)]
    return -sum(alone[1:], alone[0]) - sum(edges[1:], edges[0])


def mean_field(params: DeepParams, v: Float[Array, "*batch visible"], num: int) -> list[Bernoulli]:
    """q of x_1 .. x_L after `num` sweeps from one pass upwards, in which what is missing above counts double below.

    Raises:
        InputError: if num is no integer of at least 1.
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise InputError(f"num must be an integer of at least 1, the number of sweeps of mean field, not {num!r}")
    weights, biases = params["weights"], params["biases"]
    last = len(weights)

    def logits(layers: list[Array], i: int) -> Array:
        above = matmul(layers[i + 1], weights[i].T) if i < last else 0.0
        return biases[i] + matmul(layers[i - 1], weights[i - 1]) + above

    means = [v]
    for i in range(1, last + 1):
        twice = 1.0 if i == last else 2.0
        means.append(jax.nn.sigmoid(biases[i] + twice * matmul(means[i - 1], weights[i - 1])))

    def sweep(_: Any, found: list[Array]) -> list[Array]:
        layers = [v, *(jax.nn.sigmoid(logit) for logit in found)]
        new = list(found)
        for i in (*range(1, last + 1, 2), *range(2, last + 1, 2)):
            new[i - 1] = logits(layers, i)
            layers[i] = jax.nn.sigmoid(new[i - 1])
        return new

    start = [jnp.log(mean) - jnp.log1p(-mean) for mean in (jnp.clip(m, 1e-6, 1 - 1e-6) for m in means[1:])]
    return [Bernoulli(logit) for logit in jax.lax.fori_loop(0, num, sweep, start)]


def mean_field_bound(
    params: DeepParams, v: Float[Array, "*batch visible"], posterior: Sequence[Bernoulli]
) -> Float[Array, "*batch"]:
    """-E(v, μ) + H(q): a lower bound on log p(v) + log Z, in nats."""
    value = -deep_energy(params, [v, *(q.mean for q in posterior)])
    return value + sum((q.entropy().sum(-1) for q in posterior[1:]), posterior[0].entropy().sum(-1))
