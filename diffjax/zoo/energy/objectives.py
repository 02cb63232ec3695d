"""The ways to train an energy or a score, each a name of one configuration: `OBJECTIVES`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import losses, randomness
from diffjax.distributions import Normal
from diffjax.losses import energies
from diffjax.memory import Memory

Energy = Callable[[Array], Array]  # (batch, *event) -> (batch,)


class Settings(NamedTuple):
    """What the objectives take.

    sigma: the one noise level of denoising score matching
    chain_steps, step_size: of Langevin chains
    weight: of the squares of the energies in contrastive divergence
    ratio, noise_std: of noise-contrastive estimation, noise N(0, noise_std²)
    chains, restart: of persistent chains: how many, and the probability with which one begins anew
    start_std: chains begin at N(0, start_std²)
    """

    sigma: float = 0.1
    chain_steps: int = 20
    step_size: float = 0.01
    weight: float = 0.0
    ratio: int = 1
    noise_std: float = 1.0
    chains: int = 5000
    restart: float = 0.01
    start_std: float = 1.0


class Given(NamedTuple):
    """What an objective sees: the energy (None for a score network), the score, the learned -log Z, the batch."""

    energy: Energy | None
    score: Callable[[Array], Array]
    offset: Array
    batch: Any


Objective = Callable[[Settings, Given, randomness.Keys, Array], Array]


def _of(given: Given) -> Energy:
    assert given.energy is not None  # `make` lets no score network come here
    return given.energy


def _exact(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    return losses.exact_score_matching(given.score, x)


def _sliced(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    return losses.sliced_score_matching(given.score, key, x)


def _denoising(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    return losses.denoising_score_matching(given.score, key, x, settings.sigma)


def _noise_contrastive(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    noise = Normal(jnp.zeros(x.shape[1:]), jnp.full(x.shape[1:], settings.noise_std**2))
    energy = _of(given)
    return energies.noise_contrastive(lambda x: given.offset - energy(x), noise, key, x, settings.ratio)


def _contrastive_divergence(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    y = energies.langevin_chain(_of(given), key, x, settings.step_size, settings.chain_steps)
    return energies.contrastive_divergence(_of(given), x, y, settings.weight)


def _persistent(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    """The batch has the chains, see `persistent_chains`. Where it has none, outside of training, they begin at x."""
    if not isinstance(given.batch, dict) or "chain" not in given.batch:
        return _contrastive_divergence(settings, given, key, x)
    return energies.contrastive_divergence(_of(given), x, given.batch["chain"], settings.weight)


def _flow(settings: Settings, given: Given, key: randomness.Keys, x: Array) -> Array:
    return energies.minimum_probability_flow(_of(given), x)


OF_SCORES: dict[str, Objective] = {"exact": _exact, "sliced": _sliced, "denoising": _denoising}
OF_ENERGIES: dict[str, Objective] = {
    "noise_contrastive": _noise_contrastive,
    "contrastive_divergence": _contrastive_divergence,
    "persistent": _persistent,
}
OF_BITS: dict[str, Objective] = {"minimum_probability_flow": _flow}
OBJECTIVES = OF_SCORES | OF_ENERGIES | OF_BITS


def persistent_chains(energy: Callable[[Any, Array], Array], shape: tuple[int, ...], settings: Settings) -> Memory:
    """The memory of chains that go on from step to step (Tieleman 2008). An example of a batch gets one of them.

    After a step these chains move on by the new parameters, or begin anew with a small probability.
    """

    def fresh(key: Array, num: int) -> Array:
        return settings.start_std * jax.random.normal(key, (num, *shape))

    def draw(memory: Array, key: Array, num: int) -> dict[str, Array]:
        index = jax.random.randint(key, (num,), 0, len(memory))
        return {"chain": memory[index], "chain_index": index}

    def update(memory: Array, key: Array, params: Any, batch: Any, losses: Array) -> Array:
        start_key, which_key, key = jax.random.split(key, 3)
        chains, index = batch["chain"], batch["chain_index"]
        again = jax.random.uniform(which_key, (len(chains), *len(shape) * (1,))) < settings.restart
        chains = jnp.where(again, fresh(start_key, len(chains)), chains)
        moved = energies.langevin_chain(
            lambda x: energy(params, x), key, chains, settings.step_size, settings.chain_steps
        )
        return memory.at[index].set(moved)

    return Memory(lambda params: fresh(jax.random.key(0), settings.chains), draw, update)
