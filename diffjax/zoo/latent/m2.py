"""M2 of Kingma, Mohamed, Rezende & Welling 2014: a class y and a style z. Most classes are not observed.

    p(y) = 1/C,   p(z) = N(0, I),   p(x | y, z) by a network;    q(y | x) and q(z | x, y) by two others

    -L(x, y) = E_q(z|x,y)[log p(x | y, z)] - KL(q(z | x, y) ‖ p(z)) + log p(y)  ≤  log p(x, y)             (eq. 6)
    -U(x)    = Σ_y q(y | x) [-L(x, y) - log q(y | x)]                           ≤  log p(x)               (eq. 7)
    J^α      = Σ_labelled L(x, y) + Σ_unlabelled U(x) + α N E_labelled[-log q(y | x)]                 (eqs. 8 and 9)

over N examples. The paper writes α for our α N, and has α = 0.1 in our notation. The sum over classes is exact. All
classes of an example have the same noise: q(y | x) learns from their differences, which then have less variance.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from diffjax import randomness
from diffjax.distributions import Normal
from diffjax.nets.autoencoders import Dense
from diffjax.nets.by_class import ByClass
from diffjax.zoo.latent.likelihoods import log_bits
from diffjax.zoo.latent.networks import PRIOR, normal


class M2(NamedTuple):
    """The networks as functions of their parameters. An axis `classes` has an entry for each class.

    init(key) -> params
    log_class(params, x) -> log q(y | x)
    style(params, x) -> q(z | x, y) for all y
    log_likelihood(params, x, z) -> log p(x | y, z) in nats, where z has one entry for each class
    mean(params, z) -> E[x | y, z] for all y. If the axis has size 1, all classes share z
    draw(params, key, z) -> x ~ p(x | y, z), with probabilities in place of bits
    """

    init: Callable[[Array], Any]
    log_class: Callable[[Any, Float[Array, "batch dim"]], Float[Array, "batch classes"]]
    style: Callable[[Any, Float[Array, "batch dim"]], Normal]
    log_likelihood: Callable[
        [Any, Float[Array, "batch dim"], Float[Array, "batch classes latent"]], Float[Array, "batch classes"]
    ]
    mean: Callable[[Any, Float[Array, "batch #classes latent"]], Float[Array, "batch classes dim"]]
    draw: Callable[[Any, Array, Float[Array, "batch #classes latent"]], Float[Array, "batch classes dim"]]


class Costs(NamedTuple):
    """The costs of each class, in nats. L(x, y) is their sum plus log C."""

    reconstruction: Float[Array, "batch classes"]
    latent: Float[Array, "batch classes"]


def m2(dim: int, num_classes: int, latent: int, features: Sequence[int], bits: bool) -> M2:
    """M2 of vectors of `dim` bits or real numbers. For the latter p(x | y, z) is a Gaussian with learned variance."""
    classifier, encoder = Dense(features, num_classes), ByClass(num_classes, features, 2 * latent)
    decoder = ByClass(num_classes, features, dim if bits else 2 * dim)

    def init(key: Array) -> Any:
        keys, x = jax.random.split(key, 3), jnp.zeros(dim)
        return {
            "classifier": classifier.init(keys[0], x)["params"],
            "encoder": encoder.init(keys[1], x[None])["params"],
            "decoder": decoder.init(keys[2], jnp.zeros((1, latent)))["params"],
        }

    def log_class(params: Any, x: Array) -> Array:
        return jax.nn.log_softmax(jnp.asarray(classifier.apply({"params": params["classifier"]}, x)))

    def style(params: Any, x: Array) -> Normal:
        return normal(jnp.asarray(encoder.apply({"params": params["encoder"]}, x[..., None, :])))

    def decode(params: Any, z: Array) -> Array:
        return jnp.asarray(decoder.apply({"params": params["decoder"]}, z))

    def log_likelihood(params: Any, x: Array, z: Array) -> Array:
        out, x = decode(params, z), x[..., None, :]
        return (log_bits(x, out) if bits else normal(out).log_prob(x)).sum(-1)

    def mean(params: Any, z: Array) -> Array:
        out = decode(params, z)
        return jax.nn.sigmoid(out) if bits else normal(out).mean

    def draw(params: Any, key: Array, z: Array) -> Array:
        return mean(params, z) if bits else normal(decode(params, z)).sample(key)

    return M2(init, log_class, style, log_likelihood, mean, draw)


def costs(model: M2, params: Any, key: randomness.Keys, x: Float[Array, "batch dim"]) -> Costs:
    """One draw of z for every class."""
    q = model.style(params, x)
    batch, _, latent = q.mean.shape
    eps = randomness.normal(key, (batch, latent), q.mean.dtype)
    z = q.mean + jnp.sqrt(q.variance) * eps[:, None]
    return Costs(-model.log_likelihood(params, x, z), q.kl(PRIOR).sum(-1))


def terms(
    model: M2, params: Any, key: randomness.Keys, x: Float[Array, "batch dim"]
) -> dict[str, Float[Array, " batch"]]:
    """The parts of U(x): the cost of x given y and z, the cost of z given y, and KL(q(y | x) ‖ p(y))."""
    log_q = model.log_class(params, x)
    q, of = jnp.exp(log_q), costs(model, params, key, x)
    return {
        "reconstruction": (q * of.reconstruction).sum(-1),
        "latent": (q * of.latent).sum(-1),
        "class": (q * log_q).sum(-1) + jnp.log(log_q.shape[-1]),
    }


def objective(
    model: M2, params: Any, key: randomness.Keys, x: Float[Array, "batch dim"], label: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """L(x, label) for examples with a label of at least 0, U(x) for the others. Their mean is J / N."""
    log_q = model.log_class(params, x)
    of = costs(model, params, key, x)
    known = (label >= 0)[:, None]
    q = jnp.where(known, jax.nn.one_hot(label, log_q.shape[-1]), jnp.exp(log_q))
    entropy = -jnp.where(known, 0.0, q * log_q).sum(-1)
    return (q * (of.reconstruction + of.latent)).sum(-1) + jnp.log(log_q.shape[-1]) - entropy
