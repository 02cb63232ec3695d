"""A network as an energy E, p(x) = exp(-E(x))/Z, or as a score, trained by one of `objectives.OBJECTIVES`, as a Model.

    log p(x) = -E(x) - log Z,  log Z by a sum over all points where there is one, see `partition.py`

Samples are the ends of unadjusted Langevin chains, of bits those of Gibbs sampling. Score matching learns scores
where there are data. Far from them, a score learned at one noise level is wrong, and chains that begin there fail. Many
noise levels mend that: see configs/ncsn_toy.py (Song & Ermon 2019, section 3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import losses, mcmc, randomness
from diffjax.distributions import Bernoulli
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.table import Table
from diffjax.reference import GaussianMixture
from diffjax.zoo.energy.objectives import OBJECTIVES, Given, Settings, persistent_chains
from diffjax.zoo.energy.partition import Support, log_partition
from diffjax.zoo.figures import Arrows, Contours, Figure, Figures, Mark, Panels, Points
from diffjax.zoo.model import Batch, Model, bound_of, dequantised, image_of, scaled


class Network(NamedTuple):
    """init(key, x) -> params; apply(params, x) -> energies (batch,), or scores of the shape of x."""

    init: Callable[[Array, Array], Any]
    apply: Callable[[Any, Array], Array]
    is_energy: bool = True

    def score(self, params: Any) -> Callable[[Array], Array]:
        if self.is_energy:
            return losses.energy_score(lambda x: self.apply(params, x))
        return lambda x: self.apply(params, x)


Answer = Callable[[Any], dict[str, dict[str, float]]]  # the network's parameters -> rows of a table


class Chains(NamedTuple):
    """How samples are drawn: the steps of a chain, its step size, and the deviation of its start."""

    steps: int
    step_size: float
    start_std: float


def energy_model(
    network: Network,
    shape: tuple[int, ...],
    levels: int,
    *,
    objective: str,
    settings: Settings,
    chains: Chains,
    over: Support | None = None,
    truth: GaussianMixture | None = None,
    answer: Answer | None = None,
) -> Model:
    """An energy model, or a score model at one noise level, of examples of `shape`.

    Args:
        network: the energy or the score.
        levels: 2 for bits, 0 for real numbers. Other levels are made continuous by uniform noise.
        objective: of `OBJECTIVES`.
        over: all points of the space, for log Z; None if they are too many, or the network is a score: no bound then.
        truth: the law of the data in the plane, to draw beside the model.
        answer: the network's parameters beside what they should be.
    """
    has_bound = over is not None and network.is_energy

    def energy(params: Any, x: Array) -> Array:
        return network.apply(params["network"], x)

    def log_z(params: Any) -> Array:
        assert over is not None  # asked only where `has_bound`
        return log_partition(lambda x: energy(params, x), over)

    def init(key: Array) -> dict[str, Any]:
        params = {"network": network.init(key, jnp.zeros((1, *shape)))}
        return params | ({"offset": jnp.zeros(())} if objective == "noise_contrastive" else {})

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        data_key, key = randomness.split(key, 2)
        given = Given(
            (lambda x: energy(params, x)) if network.is_energy else None,
            network.score(params["network"]),
            params.get("offset", jnp.zeros(())),
            batch,
        )
        return OBJECTIVES[objective](settings, given, key, _prepared(data_key, batch, levels))

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        x = _prepared(key, batch, levels)
        return {"energy": energy(params, x), "log Z": jnp.full(len(x), log_z(params))}

    def sample(params: Any, key: Array, num: int) -> Array:
        start_key, key = jax.random.split(key)
        if levels == 2:
            return _gibbs(lambda x: energy(params, x), key, start_key, (num, *shape), chains.steps)
        start = chains.start_std * jax.random.normal(start_key, (num, *shape))
        return langevin(network.score(params["network"]), key, start, chains)

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        rows = {} if answer is None else answer(params["network"])
        learned = {"learned": -float(params["offset"])} if "offset" in params else {}
        return rows | ({"log Z": {"by a sum": float(log_z(params))} | learned} if has_bound else {})

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        if shape != (2,) or levels:
            return {}

        def density(x: Array) -> Array:
            return jnp.exp(-energy(params, x) - log_z(params))

        known = density if has_bound else None
        return {"fields": _fields(network.score(params["network"]), known, truth, sample(params, key, 2000), batch)}

    tables = (Table(table),) if has_bound or answer is not None else ()
    return Model(
        init,
        loss,
        bound_of(terms) if has_bound else None,
        sample,
        memory=persistent_chains(energy, shape, settings) if objective == "persistent" else None,
        measures=((Bound(terms, unit="nats"),) if has_bound else ()) + tables,
        figures=Figures(own=figures),
    )


def _prepared(key: randomness.Keys, batch: Batch, levels: int) -> Array:
    """Bits as floats, real numbers as they are, other levels made continuous."""
    if levels == 2:
        return scaled(image_of(batch), 0).astype(float)
    return dequantised(key, image_of(batch), levels)


def langevin(score: Callable[[Array], Array], key: Array, start: Array, chains: Chains) -> Array:
    """The ends of unadjusted Langevin chains from `start` (num, *event), each with its own noise."""
    kernel = mcmc.langevin(None, chains.step_size, score=score)  # of all chains at once: noise is drawn for each number

    def step(state: Any, key: Array) -> tuple[Any, None]:
        return kernel.step(key, state)[0], None

    return jax.lax.scan(step, kernel.init(start), jax.random.split(key, chains.steps))[0].position


def _gibbs(
    energy: Callable[[Array], Array], key: Array, start_key: Array, shape: tuple[int, ...], sweeps: int
) -> Array:
    """Bits (num, dim) after `sweeps` systematic scans from coins."""

    def conditional(i: Array, z: Array) -> Bernoulli:
        off, on = energy(jnp.stack([z.at[i].set(0.0), z.at[i].set(1.0)]))
        return Bernoulli(off - on)

    kernel = mcmc.gibbs(conditional)
    start = jax.random.bernoulli(start_key, 0.5, shape).astype(float)

    def chain(key: Array, z: Array) -> Array:
        return mcmc.run(kernel, key, z, sweeps)[0].position[-1]

    return jax.vmap(chain)(jax.random.split(key, shape[0]), start)


def _fields(
    score: Callable[[Array], Array],
    density: Callable[[Array], Array] | None,
    truth: GaussianMixture | None,
    samples: Array,
    batch: Batch,
) -> Panels:
    """Data and samples; the true score and the learned one, over their densities as far as they are known."""
    data = jnp.asarray(image_of(batch))
    extent = 1.4 * float(jnp.abs(data).max())
    side, fine = jnp.linspace(-extent, extent, 19), jnp.linspace(-extent, extent, 121)
    points = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    dense = jnp.stack(jnp.meshgrid(fine, fine), -1).reshape(-1, 2)

    def over_density(title: str, field: Array, density: Callable[[Array], Array] | None) -> list[Mark]:
        # All arrows of a picture are divided by the longest. Scores far out are long: cut the longest tenth.
        size = jnp.linalg.norm(field, axis=-1, keepdims=True)
        arrows = Arrows(title, points, field * jnp.minimum(1.0, jnp.quantile(size, 0.9) / jnp.maximum(size, 1e-9)))
        if density is None:
            return [arrows]
        return [Contours(title, fine, fine, density(dense).reshape(len(fine), len(fine))), arrows]

    rows: list[list[Mark | list[Mark]]] = [[Points("data", data[:2000]), Points("samples", samples)], []]
    if truth is not None:
        rows[1].append(over_density("true score", truth.score(points), lambda x: jnp.exp(truth.log_prob(x))))
    rows[1].append(over_density("learned score", score(points), density))
    return Panels(rows, extent=extent)
