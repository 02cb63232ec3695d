"""Deep Boltzmann machines (Salakhutdinov and Hinton 2009), whose equations are those of `diffjax.energy.deep`.

    ∇ log p(v) ≈ -∇E(v, μ) + ∇F of chains,  μ by mean field, the chains persistent

Chains are of the odd layers alone: F sums the even ones out, v among them. All layers learn at once from small weights;
the paper begins with a stack of restricted machines.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import energy, randomness
from diffjax.energy.contrastive import check_count
from diffjax.evaluation.partition import Partition
from diffjax.memory import Memory
from diffjax.zoo.energy.rbm import FILTERS, check_bits, check_deep, filters
from diffjax.zoo.figures import Figure, Figures, Grid, grid
from diffjax.zoo.latent.likelihoods import bits
from diffjax.zoo.model import Batch, Examples, Model

Params = dict[str, Any]
STARTS = 1000  # examples whose mean field says where the annealing starts


def dbm(
    shape: tuple[int, ...],
    hidden: Sequence[int],
    *,
    sweeps: int = 10,
    k: int = 1,
    num_chains: int = 100,
    temperatures: int = 1000,
    sample_steps: int = 1000,
) -> Model:
    """A deep Boltzmann machine of bits of `shape`.

    Args:
        hidden: bits of the hidden layers, the lowest first.
        sweeps: of mean field.
        k: Gibbs steps of the chains after each step of training.
        num_chains: of them.
        temperatures: of the annealing that estimates log Z.
        sample_steps: Gibbs steps from noise to a sample.
    """
    dim = math.prod(shape)
    odd = sum(hidden[::2])
    betas = energy.betas(temperatures)
    chains = energy.persistent(odd, num_chains, k)

    def fit(params: Params, examples: Batch) -> Params:
        """The biases of v that the data have."""
        _, *others = params["biases"]
        return {**params, "biases": [energy.centre_of(params, _flat(examples)), *others]}

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        v = _flat(batch)
        posterior = energy.mean_field(jax.lax.stop_gradient(params), v, sweeps)
        seen = energy.deep_energy(params, [v, *(q.mean for q in posterior)])
        return seen - energy.free_energy(energy.bipartite(params), batch["memory"]).mean()

    def update(memory: Array, key: Array, params: Params, batch: Batch, losses: Array) -> Array:
        return chains.update(memory, key, energy.bipartite(params), batch, losses)

    def log_density(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        v = _flat(batch)
        return energy.mean_field_bound(params, v, energy.mean_field(params, v, sweeps))

    def log_partition(params: Params, key: Array, examples: Batch, num: int) -> Array:
        v = _flat({"image": examples["image"][:STARTS]})
        means = [v, *(q.mean for q in energy.mean_field(params, v, sweeps))]
        two = energy.bipartite(params)
        base = energy.centre_of(two, energy.odd_layers(means))
        return energy.log_partition_by_annealing(two, key, base, betas, num)

    def sample(params: Params, key: Array, num: int) -> Array:
        """The means of p(v | x_1), from chains that begin with coins."""
        start_key, key = jax.random.split(key)
        start = jax.random.bernoulli(start_key, 0.5, (num, odd)).astype(float)
        two = energy.bipartite(params)
        x, _ = energy.run_chains(two, key, start, sample_steps)
        return 2.0 * energy.hidden_given(two, x).mean[:, :dim].reshape(num, *shape) - 1.0

    return Model(
        lambda key: energy.deep_init(key, (dim, *hidden)),
        loss,
        None,
        sample,
        memory=Memory(chains.init, chains.draw, update),
        examples=Examples(fit),
        measures=[Partition(log_density, log_partition, bound=True)],
        figures=Figures(own=partial(_figures, shape, sweeps)),
    )


def _flat(batch: Batch) -> Array:
    x = bits(batch)
    return x.reshape(len(x), -1)


def _figures(shape: tuple[int, ...], sweeps: int, params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
    """Rows: x, and p(x | μ_1); and the weights of the lowest layer."""
    if len(shape) != 3:
        return {}
    v = _flat(batch)[:16]
    first = energy.mean_field(params, v, sweeps)[0].mean
    down = jax.nn.sigmoid(params["biases"][0] + first @ params["weights"][0].T)
    rows = jnp.concatenate([v, down]).reshape(-1, *shape)
    return {
        "reconstructions": Grid(2.0 * rows - 1.0, len(v)),
        "filters": grid(filters(params["weights"][0].T[:FILTERS].reshape(-1, *shape))),
    }


def make(config: Any) -> Model:
    """The Model of `config.{data, dbm, evaluation}`, see configs/dbm_digits.py.

    Raises:
        InputError: on data that are not bits, or a number out of range.
    """
    setting = config.dbm
    check_bits(config.data.levels)
    hidden = check_deep("dbm.hidden", setting.hidden)
    counts = {"k": "Gibbs steps", "num_chains": "chains", "sample_steps": "Gibbs steps", "sweeps": "sweeps"}
    for name, what in counts.items():
        check_count(f"dbm.{name}", setting[name], what)
    check_count("evaluation.temperatures", config.evaluation.temperatures, "temperatures")
    return dbm(
        tuple(config.data.shape),
        hidden,
        sweeps=setting.sweeps,
        k=setting.k,
        num_chains=setting.num_chains,
        temperatures=config.evaluation.temperatures,
        sample_steps=setting.sample_steps,
    )
