"""p(x | z): the distribution of an example, given the numbers of a decoder.

    bernoulli             the decoder gives log-odds of bits
    gaussian              the decoder gives mean and variance, for real numbers or levels made continuous
    isotropic_gaussian    the same with one learned variance for all elements. If linear, it is probabilistic PCA
    discretized_logistic  the decoder gives mean and log-scale, for levels (Kingma et al. 2016, section 5.2)

Levels 0 .. k-1 are scaled to [-1, 1]. For a density they become (2 (level + u) - 1)/(k - 1) - 1, with u uniform on
[0, 1). Then log P(level) ≥ E log p(x) + D log(2/(k-1)). `log_prob` includes that offset.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax import randomness
from diffjax.distributions import DiscretizedLogistic, Normal
from diffjax.errors import InputError
from diffjax.zoo.model import Batch, image_of, scaled

NAMES = ("bernoulli", "gaussian", "isotropic_gaussian", "discretized_logistic")


class Likelihood(NamedTuple):
    """out: the shape of the decoder's output for an example.
    params: the initial parameters that are learned beside the decoder.
    prepare(key, batch) -> x (batch, *shape): floats for the encoder and `log_prob`, bits or in [-1, 1].
    log_prob(params, out, x) -> (*batch,) in nats. For bits and levels a probability, otherwise a density.
    image(params, out) -> the mean of x in [-1, 1]. For levels the location of their distribution.
    table(params, out) -> (*batch, *shape, K), log-probabilities of the levels of each element. None of a density.
    """

    out: tuple[int, ...]
    params: Any
    prepare: Callable[[randomness.Keys, Batch], Array]
    log_prob: Callable[[Any, Array, Array], Array]
    image: Callable[[Any, Array], Array]
    table: Callable[[Any, Array], Array] | None = None


def make(name: str, shape: tuple[int, ...], levels: int) -> Likelihood:
    """The likelihood of examples of `shape`, of `levels` values an element (0: real numbers).

    Raises:
        InputError: on an unknown name, or on data that it does not suit.
    """
    axes = tuple(range(-len(shape), 0))
    twice = (*shape[:-1], 2 * shape[-1])
    if name not in NAMES:
        raise InputError(f"net.likelihood must be one of {', '.join(NAMES)}, not {name!r}")
    if name == "bernoulli":
        check_bits(levels)

        def of_bits(params: Any, out: Array, x: Array) -> Array:
            return log_bits(x, out).sum(axes)

        return Likelihood(
            shape,
            (),
            lambda key, batch: bits(batch),
            of_bits,
            lambda params, out: 2.0 * jax.nn.sigmoid(out) - 1.0,
            lambda params, out: jnp.stack([jax.nn.log_sigmoid(-out), jax.nn.log_sigmoid(out)], -1),
        )
    if name == "discretized_logistic":
        if levels < 2:
            raise InputError(
                f"net.likelihood='discretized_logistic' is for levels, not data.levels={levels}: choose a gaussian"
            )

        def law_of_levels(out: Array) -> DiscretizedLogistic:
            mean, log_scale = jnp.split(out, 2, -1)
            return DiscretizedLogistic(mean, jnp.exp(log_scale), levels)

        def of_levels(params: Any, out: Array, x: Array) -> Array:
            return law_of_levels(out).log_prob(x).sum(axes)

        return Likelihood(
            twice,
            (),
            lambda key, batch: scaled(image_of(batch), levels),
            of_levels,
            lambda params, out: jnp.clip(jnp.split(out, 2, -1)[0], -1.0, 1.0),
            lambda params, out: jax.vmap(law_of_levels(out).log_prob, out_axes=-1)(jnp.linspace(-1.0, 1.0, levels)),
        )

    half = 0.5 * (levels - 1)
    offset = -math.prod(shape) * math.log(half) if levels else 0.0

    def prepare(key: randomness.Keys, batch: Batch) -> Array:
        x = scaled(image_of(batch), levels)
        return x + (randomness.uniform(key, x.shape, x.dtype) - 0.5) / half if levels else x

    isotropic = name == "isotropic_gaussian"

    def law(params: Array, out: Array) -> Normal:
        mean, log_variance = (out, params) if isotropic else jnp.split(out, 2, -1)
        return Normal(mean, jnp.exp(log_variance))

    return Likelihood(
        shape if isotropic else twice,
        jnp.zeros(()) if isotropic else (),
        prepare,
        lambda params, out, x: law(params, out).log_prob(x).sum(axes) + offset,
        lambda params, out: law(params, out).mean,
    )


def log_bits(x: Float[Array, "*#shape"], logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x) of bits in nats, elementwise."""
    return x * logits - jax.nn.softplus(logits)


def check_bits(levels: int) -> None:
    """Raises `InputError` unless data are bits."""
    if levels != 2:
        raise InputError(
            f"a Bernoulli likelihood is of bits, not of data.levels={levels}: set data.levels=2 and "
            "data.binarized=True, or choose another net.likelihood"
        )


def bits(batch: Batch) -> Float[Array, "batch *shape"]:
    """A batch's examples, 0 or 1.

    Raises:
        InputError: on other values. This is not checked under `jit`.
    """
    x = jnp.asarray(image_of(batch))
    if not isinstance(x, jax.core.Tracer) and not np.isin(np.asarray(x), (0, 1)).all():  # numpy's, not traced
        raise InputError("a Bernoulli likelihood takes bits, but the batch has values other than 0 and 1: binarise it")
    return x.astype(float)
