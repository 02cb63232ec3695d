"""Generative stochastic networks with walkback (Bengio, Laufer, Alain and Yosinski 2014), of x = h_0 in [0, 1].

    x̃       each element of x replaced by a fair coin with probability `corruption`
    h_l     tanh(a_l + σ ε) + σ ε',  a_l = b_l + W_{l-1}ᵀ h_{l-1} + W_l h_{l+1}, odd layers first, then even ones
    p(x|h)  B(sigmoid(b_0 + W_0 h_1))

A chain for samples starts with a coin for each element that has the mean of the training examples. From fair coins,
where it was never trained, it also finds modes of its own, such as digits with black and white exchanged.

The weights are tied, as those of a deep Boltzmann machine, which the chain resembles. h_1 has no noise, as in the
paper's code. The loss is that of `diffjax.mcmc.walkback`. There is no likelihood: a Parzen window, or other measures of
samples, say how good these are.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import mcmc, randomness
from diffjax.distributions import Bernoulli
from diffjax.errors import InputError
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.mcmc.walkback import Network
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.model import Batch, Examples, Model, image_of

Params = dict[str, Any]
SHOWN = 20  # steps of the chains in the picture


def network(params: Params, corruption: float, noise: float) -> Network:
    """One step of an example: (key, x (dim,), [h_1 .. h_L]) -> the new hidden layers and p(x | h_1)."""
    weights, biases = params["weights"], params["biases"]
    last = len(weights)

    def step(key: Array, x: Array, h: Sequence[Array]) -> tuple[list[Array], Bernoulli]:
        keys = jax.random.split(key, last + 1)
        where_key, coin_key = jax.random.split(keys[0])
        coins = jax.random.bernoulli(coin_key, 0.5, x.shape).astype(x.dtype)
        layers = [jnp.where(jax.random.bernoulli(where_key, corruption, x.shape), coins, x), *h]
        for i in (*range(1, last + 1, 2), *range(2, last + 1, 2)):
            a = biases[i] + layers[i - 1] @ weights[i - 1]
            a += layers[i + 1] @ weights[i].T if i < last else 0.0
            before, after = noise * (i > 1) * jax.random.normal(keys[i], (2, *a.shape))
            layers[i] = jnp.tanh(a + before) + after
        return layers[1:], Bernoulli(biases[0] + layers[1] @ weights[0].T)

    return step


def initial(key: Array, units: Sequence[int]) -> Params:
    keys = jax.random.split(key, len(units) - 1)
    pairs = zip(keys, units, units[1:], strict=False)
    weights = [jax.random.normal(k, (a, b)) / math.sqrt(a + b) for k, a, b in pairs]
    return {"weights": weights, "biases": [jnp.zeros(num) for num in units], "mean": jnp.full(units[0], 0.5)}


def gsn(
    shape: tuple[int, ...],
    levels: int,
    hidden: Sequence[int],
    *,
    corruption: float = 0.4,
    noise: float = 2.0,
    walkbacks: int = 5,
    sample_steps: int = 200,
) -> Model:
    """A generative stochastic network of examples of `shape` and `levels` levels, scaled to [0, 1].

    Args:
        hidden: units of the hidden layers, the lowest first.
        corruption: the part of x that coins replace.
        noise: σ.
        walkbacks: steps of the chain from an example.
        sample_steps: steps of the chain to a sample.
    """
    units = (math.prod(shape), *hidden)

    def fit(params: Params, examples: Batch) -> Params:
        """The mean, of which the loss has no gradient."""
        return {**params, "mean": unit(examples).mean(0)}

    def unit(batch: Batch) -> Array:
        x = jnp.asarray(image_of(batch), float)
        return x.reshape(len(x), -1) / (levels - 1)

    def nothing(x: Array) -> list[Array]:
        return [jnp.zeros((*x.shape[:-1], num)) for num in hidden]

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = unit(batch)
        step = network(params, corruption, noise)
        keys = randomness.each(key, len(x))
        return jax.vmap(lambda key, x: mcmc.walkback(step, key, x, nothing(x), walkbacks))(keys, x)

    def chains(params: Params, key: Array, x: Array, num: int, every: bool = False) -> Array:
        """The means of p(x | h) after `num` steps (n, dim), or after each (num, n, dim)."""
        kernel = mcmc.stochastic_network(network(params, corruption, noise))

        def body(carry: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array | None]:
            state, info = jax.vmap(kernel.step)(jax.random.split(key, len(x)), carry[0])
            return (state, info.law.mean), info.law.mean if every else None

        start = jax.vmap(kernel.init)((x, nothing(x)))
        (_, means), path = jax.lax.scan(body, (start, x), jax.random.split(key, num))
        return means if path is None else path

    def image(x: Array) -> Array:
        return 2.0 * x.reshape(-1, *shape) - 1.0

    def sample(params: Params, key: Array, num: int) -> Array:
        """The means of the law from which the last x of each chain is drawn, as in the paper."""
        start_key, key = jax.random.split(key)
        start = jax.random.bernoulli(start_key, params["mean"], (num, units[0])).astype(float)
        return image(chains(params, key, start, sample_steps))

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Chains from examples: a row each, of consecutive means."""
        if len(shape) != 3:
            return {}
        x = unit(batch)[:10]
        path = jnp.concatenate([x[None], chains(params, key, x, SHOWN, every=True)])
        return {"chains": Grid(image(path.swapaxes(0, 1)), SHOWN + 1)}

    return Model(
        lambda key: initial(key, units),
        loss,
        None,
        sample,
        examples=Examples(fit),
        measures=[Reconstruction(lambda params, key, batch: image(chains(params, key, unit(batch), 1)))],
        figures=Figures(own=figures),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, gsn}`, see configs/gsn_digits.py.

    Raises:
        InputError: on data that have no levels, or a number out of range.
    """
    setting, levels = config.gsn, config.data.levels
    if levels < 2:
        raise InputError(f"data.levels={levels}: this network takes data of at least 2 levels, scaled to [0, 1]")
    hidden = tuple(setting.hidden)
    if not hidden or not all(type(num) is int and num > 0 for num in hidden):
        raise InputError(f"gsn.hidden must be the numbers of units of the hidden layers, (500, 500), not {hidden}")
    for name in ("walkbacks", "sample_steps"):
        if type(setting[name]) is not int or setting[name] < 1:
            raise InputError(
                f"gsn.{name} must be an integer of at least 1, the steps of a chain, not {setting[name]!r}"
            )
    if not 0 <= setting.corruption <= 1:
        raise InputError(f"gsn.corruption is the part of x that is replaced, in [0, 1], not {setting.corruption!r}")
    if not 0 <= setting.noise < math.inf:
        raise InputError(f"gsn.noise must be a finite number of at least 0, not {setting.noise!r}")
    return gsn(
        tuple(config.data.shape),
        levels,
        hidden,
        corruption=setting.corruption,
        noise=setting.noise,
        walkbacks=setting.walkbacks,
        sample_steps=setting.sample_steps,
    )
