"""Common parts of auto-encoders with a latent z: networks, and log p(x) by better proposals than the encoder.

`log_joint(params, x, z)` is for one example. `initial(params, x)` is a Normal near its posterior.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import mcmc, randomness
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.mcmc.hmc import LogDensity
from diffjax.nets.autoencoders import ConvDecoder, ConvEncoder, Dense
from diffjax.reference import GaussianMixture
from diffjax.zoo.model import Batch

LogJoint = Callable[[Any, Array, Array], Array]
Initial = Callable[[Any, Array], Normal]
Prepare = Callable[[randomness.Keys, Batch], Array]


PRIOR = Normal(jnp.zeros(()), jnp.ones(()))  # for every element of a code


def normal(outputs: Float[Array, "*batch twice"]) -> Normal:
    """The Normal with the first half of a network's outputs as mean, and the second as log-variance."""
    mean, log_variance = jnp.split(outputs, 2, -1)
    return Normal(mean, jnp.exp(log_variance))


class Net(NamedTuple):
    """A network as two functions: init(key) -> params, apply(params, x (*batch, *in)) -> (*batch, *out)."""

    init: Callable[[Array], Any]
    apply: Callable[[Any, Array], Array]


def dense(features: tuple[int, ...], shape: tuple[int, ...], out: tuple[int, ...]) -> Net:
    """Layers of `features` units from arrays of `shape` to arrays of shape `out`."""
    net = Dense(features, math.prod(out))

    def apply(params: Any, x: Array) -> Array:
        batch = x.shape[: x.ndim - len(shape)]
        return jnp.asarray(net.apply({"params": params}, x.reshape(*batch, -1))).reshape(*batch, *out)

    return Net(lambda key: net.init(key, jnp.zeros(math.prod(shape)))["params"], apply)


def convolutional(
    channels: tuple[int, ...], units: int, shape: tuple[int, ...], outputs: int, dim: int, decoded: tuple[int, ...]
) -> tuple[Net, Net]:
    """An encoder from images of `shape` to `outputs` numbers, a decoder from `dim` numbers to the shape `decoded`."""
    encoder, decoder = ConvEncoder(channels, units, outputs), ConvDecoder(channels, units, decoded)
    return (
        Net(
            lambda key: encoder.init(key, jnp.zeros(shape))["params"],
            lambda params, x: jnp.asarray(encoder.apply({"params": params}, x)),
        ),
        Net(
            lambda key: decoder.init(key, jnp.zeros(dim))["params"],
            lambda params, z: jnp.asarray(decoder.apply({"params": params}, z)),
        ),
    )


def networks(
    net: Any, features: tuple[int, ...], shape: tuple[int, ...], outputs: int, dim: int, decoded: tuple[int, ...]
) -> tuple[Net, Net]:
    """The encoder and the decoder of `config.net`. `features` are the units of dense ones.

    Raises:
        InputError: on an unknown `net.name`, or on convolutions if the data are no images.
    """
    if net.name == "fc":
        return dense(features, shape, (outputs,)), dense(features[::-1], (dim,), decoded)
    if net.name != "conv" or len(shape) != 3:
        raise InputError(f"net.name must be 'fc' or, of images, 'conv', not {net.name!r} with data.shape={shape}")
    return convolutional(tuple(net.channels), net.units, shape, outputs, dim, decoded)


def fitted(log_joint: LogJoint, initial: Initial, prepare: Prepare) -> Callable[[Any, Array, Batch, int], Array]:
    """`ManySamples.log_weights` by a Gaussian with full covariance, fitted to each posterior (`mcmc.fit_gaussian`)."""

    def log_weights(params: Any, key: Array, batch: Batch, num: int) -> Array:
        data_key, fit_key, key = jax.random.split(key, 3)
        x = prepare(data_key, batch)

        def fit(key: Array, x: Array) -> tuple[Array, Array]:
            return mcmc.fit_gaussian(key, lambda z: log_joint(params, x, z), initial(params, x))

        mean, cov = jax.vmap(fit)(jax.random.split(fit_key, len(x)), x)

        def one(key: Array, x: Array, mean: Array, cov: Array) -> Array:
            proposal = GaussianMixture(jnp.ones(1), mean[None], cov[None])
            z = proposal.sample(key, 1)[0]
            return log_joint(params, x, z) - proposal.log_prob(z)

        def draw(key: Array) -> Array:
            return jax.vmap(one)(jax.random.split(key, len(x)), x, mean, cov)

        return jax.lax.map(draw, jax.random.split(key, num))

    return log_weights


class Annealing(NamedTuple):
    """The path of annealed importance sampling, from `initial` to p(x, z) by HMC.

    step_size: in standard deviations of `initial`
    """

    temperatures: int = 400
    num_leapfrog: int = 3
    step_size: float = 0.2


ANNEALING = Annealing()


def annealed(
    path: Annealing, log_joint: LogJoint, initial: Initial, prepare: Prepare
) -> Callable[[Any, Any, Batch], Array]:
    """`ManySamples.annealed` along this path."""
    betas = jnp.linspace(0.0, 1.0, path.temperatures + 1)

    def log_weight(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        data_key, key = randomness.split(key, 2)
        x = prepare(data_key, batch)

        def one(key: Array, x: Array) -> Array:
            q0 = initial(params, x)

            def kernel(log_density: LogDensity, _: Array) -> mcmc.Kernel:
                return mcmc.hmc(log_density, path.step_size, path.num_leapfrog, q0.variance)

            return mcmc.ais(key, q0, lambda z: log_joint(params, x, z), betas, kernel).log_weight

        return jax.vmap(one)(randomness.each(key, len(x)), x)

    return log_weight
