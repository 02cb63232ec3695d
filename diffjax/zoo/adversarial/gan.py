"""Generative adversarial networks (Goodfellow et al. 2014) as one Model: both sides descend in the same step.

    loss = L_G(θ_G; sg θ_D) + L_D(θ_D; sg θ_G) + λ gradient_penalty + γ r1,    y = G(z),  z ~ N(0, I)

sg stops the gradient. So θ_G gets the gradient of G's loss alone, θ_D that of D's loss, and one optimiser moves both at
the same time. Each side has its own learning rate in `training.parts`. The papers take several steps of D for one of G.
Here D has the larger learning rate instead (Heusel et al. 2017).

A GAN has samples and no likelihood.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import randomness, registry
from diffjax.errors import InputError
from diffjax.evaluation.discrimination import Discrimination
from diffjax.losses.adversarial import GAMES, gradient_penalty, r1
from diffjax.nets.adversarial import Discriminator, Generator, Points, check_halvings
from diffjax.zoo.model import Batch, Model, image_of, scaled

Apply = Callable[[Any, Array], Array]


class Player(NamedTuple):
    """A network as two functions: init(key, x) -> params, apply(params, x)."""

    init: Callable[[Array, Array], Any]
    apply: Apply


def gan(
    generator: Player,
    discriminator: Player,
    shape: tuple[int, ...],
    levels: int,
    *,
    latents: int,
    game: str = "non_saturating",
    penalty: float = 0.0,
    r1_weight: float = 0.0,
) -> Model:
    """A generator and a discriminator of examples of `shape`, of `levels` values an element (0: real numbers).

    Args:
        generator: params, z (batch, latents) -> (batch, *shape).
        discriminator: params, x (batch, *shape) -> (batch,), see `losses.adversarial`.
        game: of `GAMES`.
        penalty: λ, the weight of `gradient_penalty`; 10 in the paper of Gulrajani et al.
        r1_weight: γ, the weight of `r1`.
    """
    rules = GAMES[game]

    def init(key: Array) -> dict[str, Any]:
        keys = jax.random.split(key)
        z = jnp.zeros((1, latents))
        params = generator.init(keys[0], z)
        found = jax.eval_shape(generator.apply, params, z).shape[1:]
        if found != shape:
            raise InputError(f"the generator makes samples of shape {found}, the discriminator sees data of {shape}")
        return {"generator": params, "discriminator": discriminator.init(keys[1], jnp.zeros((1, *shape)))}

    def drawn(params: Any, key: randomness.Keys, num: int) -> Array:
        return generator.apply(params["generator"], randomness.normal(key, (num, latents)))

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        latent_key, between_key = randomness.split(key, 2)
        real = scaled(image_of(batch), levels)
        fake = drawn(params, latent_key, len(real))

        def critic(x: Array) -> Array:
            return discriminator.apply(params["discriminator"], x)

        of_generator = rules.generator(discriminator.apply(stop_gradient(params["discriminator"]), fake))
        fake = stop_gradient(fake)
        of_discriminator = rules.discriminator(critic(real), critic(fake))
        if penalty:
            u = randomness.uniform(between_key, (len(real),))
            of_discriminator += penalty * gradient_penalty(critic, real, fake, u)
        if r1_weight:
            of_discriminator += r1_weight * r1(critic, real)
        return of_generator + of_discriminator

    def judged(params: Any, key: Array, batch: Batch) -> tuple[Array, Array]:
        """D of the examples, and of as many samples."""
        real = scaled(image_of(batch), levels)
        fake = drawn(params, key, len(real))
        return discriminator.apply(params["discriminator"], real), discriminator.apply(params["discriminator"], fake)

    def sample(params: Any, key: Array, num: int) -> Array:
        return drawn(params, key, num)

    return Model(init, loss, sample=sample, measures=(Discrimination(judged),))


def make(config: Any) -> Model:
    """The Model of `config.{data, gan, net}`, see configs/gan_digits.py and configs/gan_toy.py.

    Raises:
        InputError: on a game that does not exist, a negative weight, no latents, or networks that do not fit the data.
    """
    setting, net, shape = config.gan, config.net, tuple(config.data.shape)
    registry.choose("gan.game", setting.game, GAMES)
    for name in ("penalty", "r1"):
        if not setting[name] >= 0:
            raise InputError(f"gan.{name} = {setting[name]!r} must be a number of at least 0; 0 switches it off")
    if not isinstance(setting.latents, int) or setting.latents < 1:
        raise InputError(f"gan.latents = {setting.latents!r} must be an integer of at least 1")
    if len(shape) not in (1, 3):
        raise InputError(f"a GAN is of images or of vectors: data.shape={shape} is neither (H, W, C) nor (n,)")
    needed, like = ("channels", "gan_digits") if len(shape) == 3 else ("features", "gan_toy")
    if needed not in net:
        raise InputError(f"data.shape={shape} needs net.{needed}: take the section net of configs/{like}.py")
    if len(shape) == 3:
        channels = tuple(net.channels)
        check_halvings(shape, channels)
        players = _player(Generator(shape, channels)), _player(Discriminator(channels[::-1]))
    else:
        features = tuple(net.features)
        critic = _player(Points(features, 1))
        players = (
            _player(Points(features, shape[0])),
            critic._replace(apply=lambda params, x: critic.apply(params, x)[:, 0]),
        )
    return gan(
        *players,
        shape,
        config.data.levels,
        latents=setting.latents,
        game=setting.game,
        penalty=setting.penalty,
        r1_weight=setting.r1,
    )


def _player(network: Any) -> Player:
    return Player(network.init, lambda params, x: network.apply(params, x))
