"""A variational auto-encoder with Hamiltonian dynamics in its posterior (Salimans, Kingma & Welling 2015, section 5).

    p(z) = N(0, I),   p(x | z) = B(decoder(z)),   q(z_0 | x) = N(μ(x), σ²(x)) by an encoder, or N(μ, σ²) without one

then, `hvi.iterations` times, a momentum, `hvi.num_leapfrog` leapfrog steps along ∇_z log p(x, z), and an inverse model
of the momentum they end with (algorithm 3). With 0 leapfrog steps it is the auto-encoder of Kingma & Welling 2014.

The momenta are those of z/σ(x): M⁻¹ = σ²(x) times a learned diagonal, so that one step size fits sharp posteriors and
wide ones. Both momentum models are networks of z, of the score there and, if there is one, of the encoder's output.
"""

import math
from typing import Any

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


def make(config: Any) -> Model:
    """The Model of `config.{data, hvi, net, evaluation}`, see configs/hvi_mnist_fc.py.

    Raises:
        InputError: on data that are not images of bits, or a choice that does not exist.
    """
    setting, dim = config.hvi, config.net.latent
    shape = tuple(config.data.shape)
    _check(config)
    encoder, decoder = latent.networks(config.net, tuple(config.net.get("features", ())), shape, 2 * dim, dim, shape)
    moves = range(setting.iterations if setting.num_leapfrog else 0)
    momentum_net = Dense((config.net.momentum_units,), 2 * dim, zero=True)

    def init(key: Array) -> Params:
        keys = iter(jax.random.split(key, 2 + 2 * len(moves)))
        first = (
            encoder.init(next(keys))
            if setting.inference_network
            else {"mean": jnp.zeros(dim), "log_variance": jnp.zeros(dim)}
        )
        inputs = jnp.zeros((4 if setting.inference_network else 2) * dim)
        return {
            "decoder": decoder.init(next(keys)),
            "initial": first,
            "momentum": [momentum_net.init(next(keys), inputs)["params"] for _ in moves],
            "inverse": [momentum_net.init(next(keys), inputs)["params"] for _ in moves],
            "log_step_size": [jnp.full((), jnp.log(setting.step_size), float) for _ in moves],
            "log_inverse_mass": [jnp.zeros(dim) for _ in moves],
        }

    def decode(params: Params, z: Array) -> Array:
        """The log-odds of the pixels."""
        return decoder.apply(params["decoder"], z)

    def log_likelihood(params: Params, x: Array, z: Array) -> Array:
        logits = decode(params, z)
        return log_bits(x, logits).sum()

    def log_joint(params: Params, x: Array, z: Array) -> Array:
        return log_likelihood(params, x, z) - 0.5 * (z**2 + LOG_2PI).sum()

    def initial(params: Params, x: Array) -> Normal:
        """q(z_0 | x) of one example."""
        if not setting.inference_network:
            return Normal(params["initial"]["mean"], jnp.exp(params["initial"]["log_variance"]))
        return latent.normal(encoder.apply(params["initial"], x))

    def iterations(params: Params, q0: Normal) -> list[vi.Hamiltonian]:
        scale = jnp.log(q0.variance)
        known = (q0.mean, scale) if setting.inference_network else ()

        def law(net_params: Params) -> Conditional:
            def momentum(x: Array, z: Array) -> Normal:
                score = jax.grad(log_joint, 2)(params, x, z)
                inputs = jnp.concatenate([*known, z, jnp.arcsinh(score)])  # scores are large where q_0 is far off
                mean, log_variance = jnp.split(jnp.asarray(momentum_net.apply({"params": net_params}, inputs)), 2)
                return Normal(mean * jnp.exp(-0.5 * scale), jnp.exp(log_variance - scale))

            return momentum

        return [
            vi.Hamiltonian(
                params["log_step_size"][i],
                params["log_inverse_mass"][i] + scale,
                law(params["momentum"][i]),
                law(params["inverse"][i]),
            )
            for i in moves
        ]

    def draw(params: Params, key: Array, x: Array) -> tuple[Array, Array]:
        """z_T and log w of one example."""
        q0 = initial(params, x)
        steps = setting.num_leapfrog or 1  # without moves there are none
        return vi.hamiltonian(key, x, lambda x, z: log_joint(params, x, z), q0, iterations(params, q0), steps)

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = bits(batch)
        return -jax.vmap(lambda key, x: draw(params, key, x)[1])(randomness.each(key, len(x)), x)

    def terms(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        x = bits(batch)
        z, log_w = jax.vmap(lambda key, x: draw(params, key, x))(randomness.each(key, len(x)), x)
        distortion = -jax.vmap(lambda x, z: log_likelihood(params, x, z))(x, z)
        return {"reconstruction": distortion, "latent": -log_w - distortion}

    def bound(params: Params, key: Array, batch: Batch) -> Array:
        return -loss(params, key, batch)

    def sample(params: Params, key: Array, num: int) -> Array:
        z = jax.random.normal(key, (num, dim))
        return 2.0 * jax.nn.sigmoid(jax.vmap(lambda z: decode(params, z))(z)) - 1.0

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Rows: x, its decoded z_0 and, moved by the dynamics, z_T."""
        x = bits(batch)[:16]
        keys = jax.random.split(key, len(x))

        def decoded(key: Array, x: Array) -> tuple[Array, Array]:
            z0 = initial(params, x).sample(jax.random.split(key, len(moves) + 1)[0])
            return decode(params, z0), decode(params, draw(params, key, x)[0])

        before, after = jax.vmap(decoded)(keys, x)
        rows = [x, jax.nn.sigmoid(before), jax.nn.sigmoid(after)]
        return {"reconstructions": Grid(2.0 * jnp.concatenate(rows) - 1.0, len(x))}

    around = (log_joint, initial, lambda key, batch: bits(batch))
    return Model(
        init,
        loss,
        bound,
        sample,
        measures=(
            Bound(terms),
            ManySamples(bound, latent.fitted(*around), latent.annealed(config.evaluation.annealing, *around)),
        ),
        figures=Figures(own=figures),
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
