"""VQ-VAE (van den Oord et al. 2017) and VQ-VAE-2 (Razavi et al. 2019), with the prior over their codes, as one Model.

    z = encoder(x),  k = nearest code,  z_q = e_k;  of two levels, the coarse codes are k_1 and the fine ones k_0
    log p(x) ≥ log p(x | z_q(x)) + log p(k(x)),      p(k) = p(k_1) p(k_0 | k_1) by autoregressive priors

The bound holds for any encoder: p(x) = Σ_k p(k) p(x | k), and k(x) is one of the terms. So bits/dim compare with those
of every other model. Both parts are trained in one run:

    loss = -log p(x | z_q)/D - log p(sg k)/D + β |z - sg(z_q)|²/dim

The prior learns the codes of now and gives no gradient to the encoder. The papers train it afterwards.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import autoregressive as ar
from diffjax import randomness
from diffjax import vector_quantization as vq
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.codes import Codes
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.memory import Memory
from diffjax.zoo.autoregressive.networks import Causal
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent.likelihoods import Likelihood
from diffjax.zoo.model import Batch, Model, bound_of, image_of, scaled

Params = dict[str, Any]


class Quantiser(NamedTuple):
    """How codebooks are learned.

    num_codes: K of each level
    dim: of a vector
    commitment: β
    decay: γ of the running means; 0 < γ < 1. Or 0: the codebook is learned by its gradient
    least: a code used less often in a batch, on average, begins anew; 0: never
    """

    num_codes: int
    dim: int
    commitment: float = 0.25
    decay: float = 0.99
    least: float = 0.0


class Quantised(NamedTuple):
    """Of an example, level 0 first: vectors before (z) and after (e), and codes, each (batch, *grid, ...)."""

    z: list[Array]
    e: list[Array]
    codes: list[Array]


class Networks(NamedTuple):
    """All networks of a VQ-VAE, and what they are made of. The fields are arguments of `vq_vae`.

    params: {"network", "likelihood", "codebook": the vectors of each level, "prior": of each level}, level 0 first
    """

    network: Any
    likelihood: Likelihood
    priors: Sequence[Causal]
    shape: tuple[int, ...]
    quantiser: Quantiser

    def init(self, key: Array) -> Params:
        net_key, book_key, *prior_keys = jax.random.split(key, 4)
        size, num = (self.quantiser.num_codes, self.quantiser.dim), len(self.priors)
        params = {
            "network": self.network.init(net_key, jnp.zeros((1, *self.shape))),
            "likelihood": self.likelihood.params,
            "codebook": [jax.random.normal(k, size) / math.sqrt(size[1]) for k in jax.random.split(book_key, num)],
        }
        vq.codebook(params["codebook"][0])
        given = [jnp.zeros(self.grids(params)[0] + size[1:])[None]] if num == 2 else []
        pairs = enumerate(zip(self.priors, prior_keys, strict=False))
        return params | {"prior": [prior.init(k, *given[i:]) for i, (prior, k) in pairs]}

    def apply(self, params: Params, *arguments: Any, method: str) -> Any:
        return self.network.apply(params["network"], *arguments, method=method)

    def grids(self, params: Params) -> list[tuple[int, ...]]:
        """The shapes of the codes of each level."""
        found = jax.eval_shape(lambda: self.quantise(params, jnp.zeros((1, *self.shape))))
        return [codes.shape[1:] for codes in found.codes]

    def quantise(self, params: Params, x: Array) -> Quantised:
        def one(z: Array, book: Array) -> tuple[Array, Array]:
            codes = vq.nearest(book, jax.lax.stop_gradient(z))
            return book[codes], codes

        books = params["codebook"]
        if len(self.priors) == 1:
            z = self.apply(params, x, method="encode")
            e, codes = one(z, books[0])
            return Quantised([z], [e], [codes])
        h, coarse = self.apply(params, x, method="encode_coarse")
        e1, codes1 = one(coarse, books[1])
        known = self.apply(params, vq.straight_through(coarse, e1), method="known")
        fine = self.apply(params, h, known, method="encode_fine")
        e0, codes0 = one(fine, books[0])
        return Quantised([fine, coarse], [e0, e1], [codes0, codes1])

    def log_likelihood(self, params: Params, e: list[Array], x: Array) -> Array:
        """log p(x | e), (batch,) in nats."""
        out = self.apply(params, e, method="decode").reshape(len(x), *self.likelihood.out)
        return self.likelihood.log_prob(params["likelihood"], out, x)

    def log_prior(self, params: Params, codes: list[Array]) -> Array:
        """log p(k), (batch,) in nats. The prior of level 0 sees the vectors of level 1."""
        total = jnp.zeros(len(codes[0]))
        for level, prior in enumerate(self.priors):
            conditionals = _conditionals(prior, params, level, _above(params, codes, level))
            total += ar.log_prob(conditionals, codes[level].reshape(len(total), -1))
        return total

    def image(self, params: Params, e: list[Array]) -> Array:
        """The mean of p(x | e)."""
        out = self.apply(params, e, method="decode")
        return self.likelihood.image(params["likelihood"], out.reshape(len(out), *self.likelihood.out))

    def sample(self, params: Params, key: Array, num: int) -> Array:
        """Codes from the priors, coarse ones first, decoded."""
        codes = [jnp.zeros((num, *grid), jnp.int32) for grid in self.grids(params)]
        for level in reversed(range(len(self.priors))):
            conditionals = _conditionals(self.priors[level], params, level, _above(params, codes, level))
            drawn = ar.sample(conditionals, jax.random.fold_in(key, level), num)
            codes[level] = drawn.reshape(codes[level].shape)
        return self.image(params, [params["codebook"][i][c] for i, c in enumerate(codes)])


def vq_vae(
    network: Any,
    likelihood: Likelihood,
    priors: Sequence[Causal],
    shape: tuple[int, ...],
    levels: int,
    quantiser: Quantiser,
    figures: Figures | None = None,
) -> Model:
    """A VQ-VAE of examples of `shape`, of `levels` values an element (0: real numbers).

    Args:
        network: a `nets.quantised.Levels` of one or two levels.
        likelihood: p(x | z_q) from the decoder's numbers.
        priors: of the codes of each level, level 0 first. With two levels, that of level 0 takes a condition.
    """
    nets, size = Networks(network, likelihood, priors, shape, quantiser), math.prod(shape)

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = likelihood.prepare(key, batch)
        found = nets.quantise(params, x)
        straight = [vq.straight_through(z, e) for z, e in zip(found.z, found.e, strict=True)]
        cost = -nets.log_likelihood(params, straight, x) / size
        for z, e in zip(found.z, found.e, strict=True):
            cost += quantiser.commitment * _mean_square(z - jax.lax.stop_gradient(e))
            if not quantiser.decay:
                cost += _mean_square(jax.lax.stop_gradient(z) - e)
        fixed = params | {"codebook": jax.lax.stop_gradient(params["codebook"])}
        return cost - nets.log_prior(fixed, found.codes) / size

    def terms(params: Params, key: Array, batch: Batch) -> dict[str, Array]:
        x = likelihood.prepare(key, batch)
        found = nets.quantise(params, x)
        fit = nets.log_likelihood(params, found.e, x)
        return {"code": -nets.log_prior(params, found.codes), "reconstruction": -fit}

    def reconstruct(params: Params, key: Array, batch: Batch) -> Array:
        return nets.image(params, nets.quantise(params, likelihood.prepare(key, batch)).e)

    def pictures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Of images: rows x and its reconstruction."""
        if len(shape) != 3:
            return {}
        x = scaled(image_of(batch), levels)
        return {"reconstructions": Grid(jnp.concatenate([x, reconstruct(params, key, batch)]), len(x))}

    def codes(params: Params, batch: Batch) -> list[Array]:
        return nets.quantise(params, likelihood.prepare(jax.random.key(0), batch)).codes

    memory = _running_means(nets) if quantiser.decay else None
    measures = (Bound(terms), Codes(codes, quantiser.num_codes), Reconstruction(reconstruct))
    shown = figures or Figures(own=pictures)
    return Model(nets.init, loss, bound_of(terms), nets.sample, memory=memory, measures=measures, figures=shown)


def _conditionals(prior: Causal, params: Params, level: int, above: Array | None) -> ar.Conditionals:
    return prior.conditionals(params["prior"][level], jnp.arange(prior.places), 0, above)


def _above(params: Params, codes: list[Array], level: int) -> Array | None:
    """For level 0 of two, the vectors of level 1 on the grid of level 0: each axis doubled."""
    if level or len(codes) == 1:
        return None
    e = params["codebook"][1][codes[1]]
    for axis in range(1, e.ndim - 1):
        e = e.repeat(2, axis)
    return jax.lax.stop_gradient(e)


def _mean_square(x: Array) -> Array:
    return (x**2).reshape(len(x), -1).mean(1)


def _running_means(nets: Networks) -> Memory:
    """The codebooks, which get no gradient: after each step they follow the z of the batch."""
    quantiser = nets.quantiser

    def init(params: Params) -> list[vq.Codebook]:
        return [vq.codebook(vectors) for vectors in params["codebook"]]

    def update(memory: list[vq.Codebook], key: Array, params: Params, batch: Any, losses: Array) -> list[vq.Codebook]:
        found = nets.quantise(params, nets.likelihood.prepare(key, batch))
        books = []
        for level, book in enumerate(memory):
            z = found.z[level].reshape(-1, quantiser.dim)
            book = vq.updated(book, z, found.codes[level].reshape(-1), quantiser.decay)
            if quantiser.least:
                book = vq.restarted(book, jax.random.fold_in(key, level), z, quantiser.least)
            books.append(book)
        return books

    def hand_over(memory: list[vq.Codebook], params: Params) -> Params:
        return params | {"codebook": [book.vectors for book in memory]}

    return Memory(init, lambda memory, key, num: {}, update, hand_over=hand_over)
