"""Losses of a generator G against a discriminator D (Goodfellow et al. 2014), per example.

D(x) is a number, not a probability. x is an example, y = G(z) a sample. Each side descends its own loss:

    name              loss of D                                   loss of G
    non_saturating    softplus(-D(x)) + softplus(D(y))            softplus(-D(y))    (Goodfellow et al. 2014)
    hinge             max(0, 1 - D(x)) + max(0, 1 + D(y))         -D(y)              (Lim & Ye 2017)
    wasserstein       D(y) - D(x)                                 -D(y)              (Arjovsky et al. 2017)

The best D of `non_saturating` is log p(x)/q(x), p the data's density and q the samples'. Its loss is then
2 log 2 - 2 JSD(p, q). `wasserstein` estimates the distance W_1(p, q), as long as |∇D| <= 1.

Two penalties keep D smooth, of one example each:

    gradient_penalty  (|∇D(u x + (1 - u) y)| - 1)²,  u uniform in [0, 1]     (Gulrajani et al. 2017)
    r1                ½ |∇D(x)|²                                             (Mescheder et al. 2018)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.schedules import broadcast_to

Critic = Callable[[Array], Array]  # (batch, *event) -> (batch,)


class Adversarial(NamedTuple):
    """The two losses of a game, both (batch,).

    discriminator(D(x), D(y)) -> the loss of D
    generator(D(y)) -> the loss of G
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]


def _hinge(real: Array, fake: Array) -> Array:
    return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)


GAMES: dict[str, Adversarial] = {
    "non_saturating": Adversarial(
        lambda real, fake: jax.nn.softplus(-real) + jax.nn.softplus(fake), lambda fake: jax.nn.softplus(-fake)
    ),
    "hinge": Adversarial(_hinge, jnp.negative),
    "wasserstein": Adversarial(lambda real, fake: fake - real, jnp.negative),
}


def gradient_penalty(
    critic: Critic, real: Float[Array, "batch *event"], fake: Float[Array, "batch *event"], u: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """(|∇D| - 1)² at u x + (1 - u) y, a point between an example and a sample."""
    share = broadcast_to(u, real)
    square = _squared_norm(critic, share * real + (1.0 - share) * fake)
    return (jnp.sqrt(square + 1e-12) - 1.0) ** 2  # the root has no gradient at 0


def r1(critic: Critic, real: Float[Array, "batch *event"]) -> Float[Array, " batch"]:
    """½ |∇D(x)|² at the examples."""
    return 0.5 * _squared_norm(critic, real)


def _squared_norm(critic: Critic, x: Array) -> Array:
    """|∇D|² (batch,). D takes each example by itself, so the gradient of the sum has the gradients of all."""
    gradient = jax.grad(lambda x: critic(x).sum())(x)
    return (gradient.reshape(len(x), -1) ** 2).sum(1)
