"""Deep belief networks (Hinton, Osindero and Teh 2006), whose equations are those of `diffjax.energy.belief`.

One training has two phases. For `stack_steps` steps the restricted machines learn, all at once, each on draws from the
machine below it through which no gradient goes. So each learns as if those above it did not exist, which is what
greedy stacking asks for; that it does not wait for those below to be finished saves their time, and only costs it what
it learned too early. After that wake-sleep fine-tunes the directed layers and the top machine. The step is counted by
the memory, which also has the chains of every machine.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import energy, randomness
from diffjax.energy import belief
from diffjax.energy.contrastive import check_count
from diffjax.errors import InputError
from diffjax.evaluation.partition import Partition
from diffjax.memory import Memory
from diffjax.zoo.energy.rbm import FILTERS, check_bits, check_deep, filters
from diffjax.zoo.figures import Figure, Figures, Grid, grid
from diffjax.zoo.latent.likelihoods import bits
from diffjax.zoo.model import Batch, Examples, Model

Params = dict[str, Any]


def dbn(
    shape: tuple[int, ...],
    hidden: Sequence[int],
    *,
    stack_steps: int,
    k: int = 1,
    num_chains: int = 100,
    temperatures: int = 1000,
    sample_steps: int = 1000,
) -> Model:
    """A deep belief network of bits of `shape`.

    Args:
        hidden: bits of the hidden layers, the lowest first.
        stack_steps: steps of training in which machines are stacked; after these they are fine-tuned.
        k: Gibbs steps of the chains after each step of training.
        num_chains: of each machine.
        temperatures: of the annealing that estimates log Z of the top machine.
        sample_steps: Gibbs steps of the top machine from noise to a sample.
    """
    units = (math.prod(shape), *hidden)
    betas = energy.betas(temperatures)

    def init(key: Array) -> Params:
        return belief.belief_init(key, units)

    def fit(params: Params, examples: Batch) -> Params:
        """The biases of v that the data have."""
        first, *others = params["machines"]
        return {**params, "machines": [{**first, "visible": energy.centre_of(first, _flat(examples))}, *others]}

    def loss(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        v, memory = _flat(batch), batch["memory"]
        return jax.lax.cond(
            memory["step"] < stack_steps,
            lambda: belief.stacking_loss(params, key, v, memory["chains"]),
            lambda: belief.up_down_loss(params, key, v, memory["chains"][-1], memory["dreams"]),
        )

    def log_weight(params: Params, key: randomness.Keys, batch: Batch) -> Array:
        return belief.log_weight(params, key, _flat(batch))

    def log_partition(params: Params, key: Array, examples: Batch, num: int) -> Array:
        key, up_key = jax.random.split(key)
        top = params["machines"][-1]
        base = energy.centre_of(top, belief.ascend(params, up_key, _flat(examples))[-1])
        return energy.log_partition_by_annealing(top, key, base, betas, num)

    def sample(params: Params, key: Array, num: int) -> Array:
        """The means of p(v | h_1), from chains of the top machine that begin with coins."""
        start_key, chain_key, key = jax.random.split(key, 3)
        start = jax.random.bernoulli(start_key, 0.5, (num, units[-2])).astype(float)
        h, _ = energy.run_chains(params["machines"][-1], chain_key, start, sample_steps)
        _, law = belief.dream(params, key, h)
        return 2.0 * law.mean.reshape(num, *shape) - 1.0

    return Model(
        init,
        loss,
        None,
        sample,
        memory=_memory(units, stack_steps, num_chains, k),
        examples=Examples(fit),
        measures=[Partition(log_weight, log_partition, bound=True)],
        figures=Figures(own=partial(_figures, shape)),
    )


def _flat(batch: Batch) -> Array:
    x = bits(batch)
    return x.reshape(len(x), -1)


def _memory(units: Sequence[int], stack_steps: int, num_chains: int, k: int) -> Memory:
    """The step, the chains of every machine, and dreams from those of the top one."""
    memories = [energy.persistent(num, num_chains, k) for num in units[:-1]]

    def remembered(params: Params) -> dict[str, Any]:
        return {
            "step": jnp.zeros((), jnp.int32),
            "chains": [memory.init(params) for memory in memories],
            "dreams": [jnp.zeros((num_chains, num)) for num in units[:-1]],
        }

    def update(memory: dict[str, Any], key: Array, params: Params, batch: Batch, losses: Array) -> dict[str, Any]:
        *keys, dream_key = jax.random.split(key, len(units))
        moves = [
            lambda chain, i=i: memories[i].update(chain, keys[i], params["machines"][i], batch, losses)
            for i in range(len(memories))
        ]
        stacking = memory["step"] < stack_steps
        chains = [
            jax.lax.cond(stacking, move, lambda chain: chain, chain)
            for move, chain in zip(moves[:-1], memory["chains"], strict=False)
        ]
        chains.append(moves[-1](memory["chains"][-1]))
        dreams, _ = belief.dream(params, dream_key, chains[-1])
        return {"step": memory["step"] + 1, "chains": chains, "dreams": dreams}

    return Memory(remembered, lambda memory, key, num: {}, update)


def _figures(shape: tuple[int, ...], params: Params, key: Array, batch: Batch) -> dict[str, Figure]:
    """Rows: x, and what comes down from its draw of h_{L-1}; and the weights of the lowest layer."""
    if len(shape) != 3:
        return {}
    up_key, key = jax.random.split(key)
    v = _flat(batch)[:16]
    _, law = belief.dream(params, key, belief.ascend(params, up_key, v)[-1])
    rows = jnp.concatenate([v, law.mean]).reshape(-1, *shape)
    weights = params["machines"][0]["weights"] + params["down"][0]["weights"]
    return {
        "reconstructions": Grid(2.0 * rows - 1.0, len(v)),
        "filters": grid(filters(weights.T[:FILTERS].reshape(-1, *shape))),
    }


def make(config: Any) -> Model:
    """The Model of `config.{data, dbn, evaluation}`, see configs/dbn_digits.py.

    Raises:
        InputError: on data that are not bits, or a number out of range.
    """
    setting = config.dbn
    check_bits(config.data.levels)
    hidden = check_deep("dbn.hidden", setting.hidden)
    for name, what in (("k", "Gibbs steps"), ("num_chains", "chains"), ("sample_steps", "Gibbs steps")):
        check_count(f"dbn.{name}", setting[name], what)
    check_count("evaluation.temperatures", config.evaluation.temperatures, "temperatures")
    if type(setting.stack_steps) is not int or setting.stack_steps < 0:
        raise InputError(f"dbn.stack_steps must be an integer of at least 0, not {setting.stack_steps!r}")
    return dbn(
        tuple(config.data.shape),
        hidden,
        stack_steps=setting.stack_steps,
        k=setting.k,
        num_chains=setting.num_chains,
        temperatures=config.evaluation.temperatures,
        sample_steps=setting.sample_steps,
    )
