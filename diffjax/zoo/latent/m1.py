"""M1 of Kingma, Mohamed, Rezende & Welling 2014: a variational auto-encoder of bits. A classifier uses its codes.

    p(z_1) = N(0, I),   p(x | z_1) = B(decoder(z_1)),   q(z_1 | x) = N(μ(x), σ²(x)) by an encoder

Pixels are bits. They are those of the data, or they are drawn each time an example is seen, with the greys as
probabilities. In the second case features and classes are computed from the greys themselves.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import randomness
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.likelihoods import log_bits
from diffjax.zoo.model import Batch, Model, bound_of, image_of


class Pixels(NamedTuple):
    """Images of `levels` greys as vectors (batch, dim).

    binarize: whether bits are drawn each time an example is seen. If not, the data are bits
    """

    shape: tuple[int, int, int]
    levels: int
    binarize: bool = False

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def means(self, image: Array) -> Array:
        """The greys in [0, 1].

        Raises:
            InputError: on other values. This is not checked under `jit`.
        """
        x, greys = jnp.asarray(image), self.levels - 1
        if not isinstance(x, jax.core.Tracer) and not (0 <= np.asarray(x).min() <= np.asarray(x).max() <= greys):
            raise InputError(f"the batch has values other than 0 .. data.levels - 1 = {greys}")
        return x.reshape(len(x), self.dim).astype(float) / greys

    def draw(self, key: randomness.Keys, image: Array) -> Array:
        """Bits."""
        x = self.means(image)
        return (randomness.uniform(key, x.shape, x.dtype) < x).astype(x.dtype) if self.binarize else x

    def picture(self, x: Array) -> Array:
        """Probabilities of pixels (*batch, dim) as images in [-1, 1]."""
        return 2.0 * x.reshape(*x.shape[:-1], *self.shape) - 1.0


class Coder(NamedTuple):
    """The networks of M1 as distributions.

    encoder: from x (batch, pixels) to mean and log-variance of z_1 (batch, dim)
    decoder: from z_1 to the log-odds of the pixels
    """

    dim: int
    encoder: latent.Net
    decoder: latent.Net

    def init(self, key: Array) -> Any:
        keys = jax.random.split(key)
        return {"encoder": self.encoder.init(keys[0]), "decoder": self.decoder.init(keys[1])}

    def encode(self, params: Any, x: Array) -> Normal:
        """q(z_1 | x)."""
        return latent.normal(self.encoder.apply(params["encoder"], x))

    def code(self, params: Any, key: randomness.Keys, x: Array) -> tuple[Normal, Array]:
        """q(z_1 | x) and a draw of it."""
        q = self.encode(params, x)
        return q, q.mean + jnp.sqrt(q.variance) * randomness.normal(key, q.mean.shape, q.mean.dtype)

    def decode(self, params: Any, z: Array) -> Array:
        """The means of the pixels."""
        return jax.nn.sigmoid(self.decoder.apply(params["decoder"], z))

    def log_likelihood(self, params: Any, x: Array, z: Array) -> Array:
        """log p(x | z_1), (batch,) in nats."""
        return log_bits(x, self.decoder.apply(params["decoder"], z)).sum(-1)

    def cost(self, params: Any, q: Normal, x: Array, z: Array) -> Array:
        """KL(q ‖ p) - log p(x | z_1) of a draw z_1 of q, (batch,) in nats."""
        return q.kl(latent.PRIOR).sum(-1) - self.log_likelihood(params, x, z)


def m1(pixels: Pixels, coder: Coder) -> Model:
    """The auto-encoder M1 alone. params are {"m1": those of the coder}."""

    def init(key: Array) -> Any:
        return {"m1": coder.init(jax.random.split(key)[0])}

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        bits_key, code_key, *_ = randomness.split(key, 4)
        x = pixels.draw(bits_key, image_of(batch))
        q, z = coder.code(params["m1"], code_key, x)
        return coder.cost(params["m1"], q, x, z)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        bits_key, code_key, _ = jax.random.split(key, 3)
        x = pixels.draw(bits_key, image_of(batch))
        q, z = coder.code(params["m1"], code_key, x)
        distortion = -coder.log_likelihood(params["m1"], x, z)
        return {"reconstruction": distortion, "latent": q.kl(latent.PRIOR).sum(-1)}

    def features(params: Any, batch: Batch) -> Array:
        return coder.encode(params["m1"], pixels.means(image_of(batch))).mean

    def reconstruct(params: Any, key: Array, batch: Batch) -> Array:
        return pixels.picture(coder.decode(params["m1"], features(params, batch)))

    def sample(params: Any, key: Array, num: int) -> Array:
        z = jax.random.normal(jax.random.split(key, 3)[1], (num, coder.dim))
        return pixels.picture(coder.decode(params["m1"], z))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """Images, and below them what is decoded from the means of their codes."""
        x = pixels.picture(pixels.means(image_of(batch)))
        return {"reconstructions": Grid(jnp.concatenate([x, reconstruct(params, key, batch)]), len(x))}

    measures = (Bound(terms), Reconstruction(reconstruct), Probe(features))
    return Model(init, loss, bound_of(terms), sample, measures=measures, figures=Figures(own=figures))
