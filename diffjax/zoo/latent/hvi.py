"""A variational auto-encoder with Hamiltonian dynamics in its posterior (Salimans, Kingma & Welling 2015, section 5).

    p(z) = N(0, I),   p(x | z) = B(decoder(z)),   q(z_0 | x) = N(μ(x), σ²(x)) by an encoder, or N(μ, σ²) without one

Then there are `hvi.iterations` iterations: a momentum, `hvi.num_leapfrog` leapfrog steps along ∇_z log p(x, z), and an
inverse model of the momentum at the end (algorithm 3). With 0 leapfrog steps it is the auto-encoder of Kingma & Welling
2014.

The momenta are those of z/σ(x): M⁻¹ = σ²(x) times a learned diagonal. So one step size fits narrow and wide posteriors.
Both momentum models are networks of z, of the score there and of the encoder's output, if there is one.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import randomness, vi
from diffjax.distributions import LOG_2PI, Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.nets.autoencoders import Dense
from diffjax.vi.markov_chain import Conditional
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.likelihoods import bits, check_bits, log_bits
from diffjax.zoo.model import Batch, Model

Params = dict[str, Any]


class Pair(NamedTuple):
    """p(x | z) = B(decoder(z)) and q(z_0 | x), for one example x (H, W, C) of bits and one code z (dim,).

    encoder: gives mean and log-variance. None: all examples have the same mean and variance
    """

    encoder: latent.Net | None
    decoder: latent.Net

    def log_likelihood(self, params: Params, x: Array, z: Array) -> Array:
        return log_bits(x, self.decoder.apply(params["decoder"], z)).sum()

    def log_joint(self, params: Params, x: Array, z: Array) -> Array:
        return self.log_likelihood(params, x, z) - 0.5 * (z**2 + LOG_2PI).sum()

    def initial(self, params: Params, x: Array) -> Normal:
        """q(z_0 | x)."""
        if self.encoder is None:
            return Normal(params["initial"]["mean"], jnp.exp(params["initial"]["log_variance"]))
        return latent.normal(self.encoder.apply(params["initial"], x))


def hvi(
    encoder: latent.Net | None,
    decoder: latent.Net,
    dim: int,
    *,
    num_leapfrog: int,
    iterations: int = 1,
    step_size: float = 0.1,
    momentum_units: int = 100,
    annealing: latent.Annealing = latent.ANNEALING,
) -> Model:
    """A variational auto-encoder of images of bits, with Hamiltonian dynamics after its encoder.

    Args:
        encoder: from an image to 2 dim numbers. None: q(z_0) is the same for all examples.
        decoder: from a code (dim,) to the log-odds of the pixels.
        num_leapfrog: the leapfrog steps of an iteration. 0 means no dynamics.
        step_size: the initial step size of the leapfrog.
        momentum_units: the units of the hidden layer of both momentum models.
        annealing: the path of annealed importance sampling.
    """
    pair = Pair(encoder, decoder)
    moves = range(iterations if num_leapfrog else 0)
    momentum_net = Dense((momentum_units,), 2 * dim, zero=True)

    def init(key: Array) -> Params:
        keys = iter(jax.random.split(key, 2 + 2 * len(moves)))
        alone = {"mean": jnp.zeros(dim), "log_variance": jnp.zeros(dim)}
        first = alone if encoder is None else encoder.init(next(keys))
        inputs = jnp.zeros((2 if encoder is None else 4) * dim)
        return {
            "decoder": decoder.init(next(keys)),
            "initial": first,
            "momentum": [momentum_net.init(next(keys), inputs)["params"] for _ in moves],
            "inverse": [momentum_net.init(next(keys), inputs)["params"] for _ in moves],
            "log_step_size": [jnp.full((), jnp.log(step_size), float) for _ in moves],
            "log_inverse_mass": [jnp.zeros(dim) for _ in moves],
        }

    def draw(params: Params, key: Array, x: Array) -> tuple[Array, Array]:
        """z_T and log w of one example."""
        q0 = pair.initial(params, x)
        steps = num_leapfrog or 1  # without moves there are none
        dynamics = [_iteration(pair, momentum_net, params, q0, i) for i in moves]
        return vi.hamiltonian(key, x, lambda x, z: pair.log_joint(params, x, z), q0, dynamics, steps)

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = bits(batch)
        return -jax.vmap(lambda key, x: draw(params, key, x)[1])(randomness.each(key, len(x)), x)

    def terms(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        x = bits(batch)
        z, log_w = jax.vmap(lambda key, x: draw(params, key, x))(randomness.each(key, len(x)), x)
        distortion = -jax.vmap(lambda x, z: pair.log_likelihood(params, x, z))(x, z)
        return {"reconstruction": distortion, "latent": -log_w - distortion}

    def decode(params: Params, z: Array) -> Array:
        """The means of images (num, H, W, C), given codes (num, dim)."""
        return jax.nn.sigmoid(jax.vmap(lambda z: decoder.apply(params["decoder"], z))(z))

    def sample(params: Params, key: Array, num: int) -> Array:
        return 2.0 * decode(params, jax.random.normal(key, (num, dim))) - 1.0

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Rows: x, the decoded z_0, and the decoded z_T, after the dynamics."""
        x = bits(batch)[:16]

        def codes(key: Array, x: Array) -> tuple[Array, Array]:
            return pair.initial(params, x).sample(jax.random.split(key, len(moves) + 1)[0]), draw(params, key, x)[0]

        before, after = jax.vmap(codes)(jax.random.split(key, len(x)), x)
        rows = [x, decode(params, before), decode(params, after)]
        return {"reconstructions": Grid(2.0 * jnp.concatenate(rows) - 1.0, len(x))}

    def bound(params: Params, key: Array, batch: Batch) -> Array:
        return -loss(params, key, batch)

    around = (pair.log_joint, pair.initial, lambda key, batch: bits(batch))
    better = ManySamples(bound, latent.fitted(*around), latent.annealed(annealing, *around))
    return Model(init, loss, bound, sample, measures=(Bound(terms), better), figures=Figures(own=figures))


def _iteration(pair: Pair, momentum_net: Dense, params: Params, q0: Normal, i: int) -> vi.Hamiltonian:
    """The dynamics of iteration i, with momenta in units of q_0's standard deviations."""
    scale = jnp.log(q0.variance)
    known = () if pair.encoder is None else (q0.mean, scale)

    def law(net_params: Params) -> Conditional:
        def momentum(x: Array, z: Array) -> Normal:
            score = jax.grad(pair.log_joint, 2)(params, x, z)
            inputs = jnp.concatenate([*known, z, jnp.arcsinh(score)])  # scores are large where q_0 is wrong
            mean, log_variance = jnp.split(jnp.asarray(momentum_net.apply({"params": net_params}, inputs)), 2)
            return Normal(mean * jnp.exp(-0.5 * scale), jnp.exp(log_variance - scale))

        return momentum

    return vi.Hamiltonian(
        params["log_step_size"][i],
        params["log_inverse_mass"][i] + scale,
        law(params["momentum"][i]),
        law(params["inverse"][i]),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, hvi, net, evaluation}`, see configs/hvi_mnist_fc.py.

    Raises:
        InputError: on data that are not images of bits, or a choice that does not exist.
    """
    setting, net, shape = config.hvi, config.net, tuple(config.data.shape)
    _check(config)
    encoder, decoder = latent.networks(net, tuple(net.get("features", ())), shape, 2 * net.latent, net.latent, shape)
    return hvi(
        encoder if setting.inference_network else None,
        decoder,
        net.latent,
        num_leapfrog=setting.num_leapfrog,
        iterations=setting.iterations,
        step_size=setting.step_size,
        momentum_units=net.momentum_units,
        annealing=latent.Annealing(**config.evaluation.annealing),
    )


def _check(config: Any) -> None:
    shape, setting = tuple(config.data.shape), config.hvi
    check_bits(config.data.levels)
    if len(shape) != 3:
        raise InputError(f"this auto-encoder needs images, data.shape=(height, width, channels), not {shape}")
    for name, least in (("num_leapfrog", 0), ("iterations", 1)):
        if not isinstance(setting[name], int) or setting[name] < least:
            raise InputError(f"hvi.{name} must be an integer of at least {least}, not {setting[name]!r}")
    if not 0 < setting.step_size < math.inf:
        raise InputError(f"hvi.step_size must be positive and finite, not {setting.step_size}")
