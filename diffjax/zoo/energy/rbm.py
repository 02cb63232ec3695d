"""Restricted Boltzmann machines (Smolensky 1986; Hinton 2002), whose equations are those of `diffjax.energy.machine`.

    cd    ∇F(v_0) - ∇F(v_k), v_k by k steps of Gibbs from the example                        (Hinton 2002)
    pcd   ∇F(v_0) less the mean of ∇F over chains that go on from step to step, k steps each  (Tieleman 2008)

Visible units are bits, or real numbers with a learned variance each. Levels then become real numbers by a uniform draw
within each, so that the density bounds the probability of the levels.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import energy, randomness, registry
from diffjax.energy.contrastive import check_count
from diffjax.energy.machine import check_visible
from diffjax.errors import InputError
from diffjax.evaluation.partition import Partition
from diffjax.zoo.figures import Figure, Figures, Grid, grid
from diffjax.zoo.model import Batch, Examples, Model, dequantised, image_of, units_of

Params = dict[str, Array]
OBJECTIVES = ("cd", "pcd")
UNITS = ("bits", "real")
ENUMERATED = 20  # units of the smaller layer, at most, whose states are summed over in a report
FILTERS = 100  # shown
LEAST_VARIANCE = 1e-3


def rbm(
    shape: tuple[int, ...],
    levels: int,
    hidden: int,
    *,
    visible: str = "bits",
    objective: str = "cd",
    k: int = 1,
    num_chains: int = 100,
    temperatures: int = 1000,
    sample_steps: int = 1000,
) -> Model:
    """A restricted Boltzmann machine of examples of `shape`.

    Args:
        levels: of the data: 2 for visible bits, 0 where the data are real numbers.
        hidden: number of hidden units.
        visible: "bits" or "real".
        objective: "cd" or "pcd".
        k: Gibbs steps, from the data or of the chains.
        num_chains: persistent ones.
        temperatures: of the annealing that estimates log Z.
        sample_steps: Gibbs steps that a sample takes from noise.
    """
    dim, real = math.prod(shape), visible == "real"
    betas = energy.betas(temperatures)
    offset = units_of(shape, levels) if real else 0.0

    def units(key: randomness.Keys, batch: Batch) -> Array:
        x = dequantised(key, image_of(batch), levels) if real else jnp.asarray(image_of(batch)).astype(float)
        return x.reshape(len(x), -1)

    def init(key: Array) -> Params:
        return energy.init(key, dim, hidden, real=real)

    def fit(params: Params, examples: Batch) -> Params:
        """The visible biases, and variances, that the data have."""
        x = units(jax.random.key(0), examples)
        params = {**params, "visible": energy.centre_of(params, x)}
        return params | ({"log_variance": jnp.log(x.var(0) + LEAST_VARIANCE)} if real else {})

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        data_key, key = randomness.split(key, 2)
        v = units(data_key, batch)
        if objective == "pcd":
            return energy.persistent_divergence(params, batch["memory"], v)
        return energy.contrastive_divergence(params, key, v, k)

    def log_density(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        v = units(key, batch)
        check_visible(params, v)
        return -energy.free_energy(params, v) - offset

    def log_partition(params: Params, key: Array, examples: Batch, num: int) -> Array:
        base = energy.centre_of(params, units(jax.random.key(0), examples))
        return energy.log_partition_by_annealing(params, key, base, betas, num)

    def bound(params: Params, key: Array, batch: Batch) -> Array:
        return log_density(params, key, batch) - energy.log_partition_by_enumeration(params)

    def sample(params: Params, key: Array, num: int) -> Array:
        """The means of the law from which the last v of each chain is drawn."""
        start_key, key = jax.random.split(key)
        start = jax.random.bernoulli(start_key, 0.5, (num, dim)).astype(float)
        means = energy.run_chains(params, key, start, sample_steps)[1].reshape(num, *shape)
        return means if real else 2.0 * means - 1.0

    exact = energy.log_partition_by_enumeration if (hidden if real else min(hidden, dim)) <= ENUMERATED else None
    return Model(
        init,
        loss,
        bound if exact else None,
        sample,
        memory=energy.persistent(dim, num_chains, k, real=real) if objective == "pcd" else None,
        examples=Examples(fit),
        measures=[Partition(log_density, log_partition, exact)],
        figures=Figures(own=lambda params, key, batch: _figures(params, key, units(key, batch)[:10], shape, real)),
    )


def filters(weights: Array) -> Array:
    """Weights (n, H, W, C) as images: each to its largest absolute value, so that 0 is grey."""
    return weights / jnp.maximum(jnp.abs(weights).max((1, 2, 3), keepdims=True), 1e-12)


def _figures(params: Params, key: Array, v: Array, shape: tuple[int, ...], real: bool) -> dict[str, Figure]:
    """The weights of some hidden units, and chains from examples: a row each, of 0, 1, 10, 100 and 1000 steps."""
    if len(shape) != 3:
        return {}
    weights = params["weights"].T[:FILTERS].reshape(-1, *shape)
    return {"filters": grid(filters(weights)), "chains": _chains(params, key, v, shape, real)}


def _chains(params: Params, key: Array, v: Array, shape: tuple[int, ...], real: bool) -> Grid:
    columns = [v]
    for steps in (1, 9, 90, 900):
        key = jax.random.fold_in(key, steps)
        v, means = energy.run_chains(params, key, v, steps)
        columns.append(means)
    images = jnp.stack(columns, 1).reshape(-1, *shape)
    return Grid(images if real else 2.0 * images - 1.0, len(columns))


def make(config: Any) -> Model:
    """The Model of `config.{data, rbm, evaluation}`, see configs/rbm_digits.py.

    Raises:
        InputError: on data that the visible units cannot be, or a choice or a number that does not exist.
    """
    setting, levels = config.rbm, config.data.levels
    registry.choose("rbm.objective", setting.objective, OBJECTIVES)
    registry.choose("rbm.visible", setting.visible, UNITS)
    for name, what in (("hidden", "hidden units"), ("k", "Gibbs steps"), ("num_chains", "chains")):
        check_count(f"rbm.{name}", setting[name], what)
    check_count("rbm.sample_steps", setting.sample_steps, "Gibbs steps")
    check_count("evaluation.temperatures", config.evaluation.temperatures, "temperatures")
    if setting.visible == "bits":
        check_bits(levels)
    return rbm(
        tuple(config.data.shape),
        levels,
        setting.hidden,
        visible=setting.visible,
        objective=setting.objective,
        k=setting.k,
        num_chains=setting.num_chains,
        temperatures=config.evaluation.temperatures,
        sample_steps=setting.sample_steps,
    )


def check_deep(field: str, hidden: Sequence[int]) -> tuple[int, ...]:
    """`hidden` as a tuple. Raises `InputError` unless it is the bits of at least two hidden layers."""
    hidden = tuple(hidden)
    if len(hidden) < 2 or not all(type(num) is int and num > 0 for num in hidden):
        raise InputError(f"{field} must be the bits of at least two hidden layers, such as (500, 500), not {hidden}")
    return hidden


def check_bits(levels: int, field: str = "data.levels") -> None:
    """Raises `InputError` unless data are bits."""
    if levels != 2:
        raise InputError(
            f"visible units that are bits take no {field}={levels}: set data.levels=2 and data.binarized=True, or,"
            " of the restricted machine, rbm.visible='real'"
        )
