"""Helmholtz machines (Dayan, Hinton, Neal and Zemel 1995): sigmoid belief networks with a recognition network each.

    p(h_L) = B(b),  p(h_l | h_{l+1}) = B(sigmoid(W_l h_{l+1} + b_l)),  p(x | h_1) the same, of bits x = h_0
    q(h_{l+1} | h_l) = B(sigmoid(R_l h_l + r_l))

trained by wake-sleep or by reweighted wake-sleep, whose equations are those of `diffjax.vi.wake_sleep`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import randomness, registry, vi
from diffjax.distributions import Bernoulli
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.vi.wake_sleep import log_weight
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent.likelihoods import bits, check_bits
from diffjax.zoo.model import Batch, Model, bound_of

Params = dict[str, Any]
Affine = dict[str, Array]
OBJECTIVES = ("wake_sleep", "reweighted")


def affine(key: Array, below: int, above: int) -> Affine:
    """Weights N(0, 1/below), bias 0, of a map from `below` to `above` numbers."""
    return {"weights": jax.random.normal(key, (below, above)) / math.sqrt(below), "bias": jnp.zeros(above)}


def law(layer: Affine, h: Array) -> Bernoulli:
    """The bits that a layer gives."""
    return Bernoulli(h @ layer["weights"] + layer["bias"])


def machine(dim: int, hidden: Sequence[int]) -> vi.Machine:
    """The machine of one example x (dim,): h is a list of layers, the lowest first.

    theta: "prior" b (h_L,), "layers" from h_{l+1} to h_l, x first. phi: a list of layers from h_l to h_{l+1}.
    """

    def recognise(phi: Sequence[Affine], key: Array, x: Array) -> list[Array]:
        h, found = x, []
        for layer, k in zip(phi, jax.random.split(key, len(phi)), strict=True):
            h = law(layer, h).sample(k)
            found.append(h)
        return found

    def log_q(phi: Sequence[Affine], x: Array, h: Sequence[Array]) -> Array:
        below = [x, *h[:-1]]
        return sum(
            (law(layer, y).log_prob(z).sum(-1) for layer, y, z in zip(phi, below, h, strict=True)), jnp.zeros(())
        )

    def dream(theta: Params, key: Array) -> tuple[Array, list[Array]]:
        keys = jax.random.split(key, len(hidden) + 1)
        found = [Bernoulli(theta["prior"]).sample(keys[0])]
        for layer, k in zip(theta["layers"][::-1], keys[1:], strict=True):
            found.append(law(layer, found[-1]).sample(k))
        return found[-1], found[-2::-1]

    def log_p(theta: Params, x: Array, h: Sequence[Array]) -> Array:
        below = [x, *h[:-1]]
        value = Bernoulli(theta["prior"]).log_prob(h[-1]).sum(-1)
        return value + sum(
            law(layer, z).log_prob(y).sum(-1) for layer, y, z in zip(theta["layers"], below, h, strict=True)
        )

    return vi.Machine(recognise, log_q, dream, log_p)


def initial(key: Array, units: Sequence[int]) -> Params:
    keys = iter(jax.random.split(key, 2 * len(units) - 2))
    pairs = list(itertools.pairwise(units))
    return {
        "generative": {
            "prior": jnp.zeros(units[-1]),
            "layers": [affine(next(keys), above, below) for below, above in pairs],
        },
        "recognition": [affine(next(keys), below, above) for below, above in pairs],
    }


def helmholtz(
    shape: tuple[int, ...],
    hidden: Sequence[int],
    *,
    objective: str = "wake_sleep",
    num_samples: int = 5,
    sleeps: float = 0.5,
) -> Model:
    """A Helmholtz machine of bits of `shape`, of hidden layers of so many bits, the lowest first.

    Args:
        objective: "wake_sleep" or "reweighted".
        num_samples: of reweighting, K.
        sleeps: of reweighting, the part that the sleep phase has in the recognition network's loss.
    """
    dim = math.prod(shape)
    parts = machine(dim, hidden)

    def flat(batch: Batch) -> Array:
        x = bits(batch)
        return x.reshape(len(x), -1)

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        x = flat(batch)
        theta, phi = params["generative"], params["recognition"]

        def one(key: Array, x: Array) -> Array:
            if objective == "wake_sleep":
                return vi.wake_sleep(parts, theta, phi, key, x)
            return vi.reweighted_wake_sleep(parts, theta, phi, key, x, num_samples, sleeps)

        return jax.vmap(one)(randomness.each(key, len(x)), x)

    def drawn(params: Params, key: randomness.Keys, x: Array) -> tuple[Array, list[Array]]:
        theta, phi = params["generative"], params["recognition"]
        each = randomness.each(key, len(x))
        return jax.vmap(lambda key, x: log_weight(parts, theta, phi, key, x))(each, x)

    def image(params: Params, h: Array) -> Array:
        """The means of p(x | h_1), in [-1, 1]."""
        return 2.0 * law(params["generative"]["layers"][0], h).mean.reshape(len(h), *shape) - 1.0

    def terms(params: Params, key: randomness.Keys, batch: Batch) -> dict[str, Array]:
        x = flat(batch)
        log_w, h = drawn(params, key, x)
        fit = law(params["generative"]["layers"][0], h[0]).log_prob(x).sum(-1)
        return {"reconstruction": -fit, "latent": fit - log_w}

    def sample(params: Params, key: Array, num: int) -> Array:
        keys = jax.random.split(key, num)
        h = jax.vmap(lambda key: parts.dream(params["generative"], key)[1][0])(keys)
        return image(params, h)

    def figures(params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
        """Rows: x, and the mean of p(x | h_1) with h_1 from the recognition network."""
        if len(shape) != 3:
            return {}
        x = flat(batch)[:16]
        rows = [2.0 * x.reshape(-1, *shape) - 1.0, image(params, drawn(params, key, x)[1][0])]
        return {"reconstructions": Grid(jnp.concatenate(rows), len(x))}

    return Model(
        lambda key: initial(key, (dim, *hidden)),
        loss,
        bound_of(terms),
        sample,
        measures=[
            Bound(terms, unit="nats"),
            ManySamples(lambda params, key, batch: drawn(params, key, flat(batch))[0]),
        ],
        figures=Figures(own=figures),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, helmholtz}`, see configs/helmholtz_digits.py.

    Raises:
        InputError: on data that are not bits, or a choice or a number that does not exist.
    """
    setting = config.helmholtz
    check_bits(config.data.levels)
    registry.choose("helmholtz.objective", setting.objective, OBJECTIVES)
    hidden = tuple(setting.hidden)
    if not hidden or not all(type(num) is int and num > 0 for num in hidden):
        raise InputError(f"helmholtz.hidden must be the numbers of bits of the hidden layers, (200, 200), not {hidden}")
    if type(setting.num_samples) is not int or setting.num_samples < 1:
        raise InputError(f"helmholtz.num_samples must be an integer of at least 1, not {setting.num_samples!r}")
    if not 0 <= setting.sleeps <= 1:
        raise InputError(f"helmholtz.sleeps must be in [0, 1], not {setting.sleeps!r}")
    return helmholtz(
        tuple(config.data.shape),
        hidden,
        objective=setting.objective,
        num_samples=setting.num_samples,
        sleeps=setting.sleeps,
    )
