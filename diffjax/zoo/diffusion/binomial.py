"""Binomial diffusion (Sohl-Dickstein et al. 2015, section 2.4 and appendix B.2): bits become independent coins.

β_t = 1/(T - t + 1), so every step erases 1/T of the original x_0. The network has sigmoid layers and a read-out for
each step. It gives the log-odds of x_0. The reverse kernel mixes the posteriors over the predicted x_0. If the
prediction is right, this is the best kernel of independent bits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax import predictions, processes, randomness, registry, samplers
from diffjax.errors import InputError
from diffjax.nets.vectors import MLP
from diffjax.zoo.diffusion.learned_chain import DEFAULTS, Chain, Choices, check_steps, chosen, learned_chain
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.model import Batch, Model, image_of


def binomial_diffusion(
    network: nn.Module,
    process: processes.Binomial,
    length: int,
    num_steps: int,
    *,
    edge: str = "fixed",
    choices: Choices = DEFAULTS,
) -> Model:
    """Binomial diffusion of vectors of `length` bits.

    Args:
        network: (2 x - 1 (batch, length), t (batch,)) -> (batch, length), log-odds of x_0 = 1 beyond the prior's.
        process: of `num_steps` steps, see `betas`.
        edge: "fixed" or "learned". If fixed, p(x_0 | x_1) is the forward step in equilibrium.
        choices: see `learned_chain`.
    """
    first = 1.5 / num_steps  # between the times of the first and of the second step

    def init(key: Array) -> Any:
        return network.init(key, jnp.zeros((1, length)), jnp.ones(1))["params"]

    def kernels(params: Any) -> tuple[processes.Binomial, predictions.Predict]:
        def fn(xt: Array, t: Array) -> Array:
            out = jnp.asarray(network.apply({"params": params}, 2.0 * xt - 1.0, t))
            logits = process.prior(xt.shape).logits + out
            if edge == "learned":
                return logits
            # In equilibrium the forward step is its own reverse.
            return jnp.where((t < first)[:, None], process.transition(xt, 0.0, t).logits, logits)

        return process, predictions.logits(fn)

    def encode(key: randomness.Keys, batch: Batch) -> Array:
        bits = jnp.asarray(image_of(batch))
        if not isinstance(bits, jax.core.Tracer) and not ((bits == 0) | (bits == 1)).all():
            raise InputError("a binomial diffusion takes bits, but the batch has values other than 0 and 1")
        return bits.astype(float)

    def null(batch: Batch) -> Array:
        x0 = encode(jax.random.key(0), batch)
        return process.prior(x0.shape).log_prob(x0).sum(1)

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """Chains of 16 sequences, from coins to heartbeats, one row for each moment; and the data."""
        stepper = samplers.ancestral(process)
        times = jnp.arange(num_steps, -1, -1) / num_steps
        _, path = samplers.sample(stepper, kernels(params)[1], key, times, (16, length), lambda state: state.x)
        shown = path[jnp.linspace(0, len(path) - 1, 60).astype(int)].swapaxes(0, 1)
        return {"reverse_process": Grid(1.0 - 2.0 * shown[..., None], 8), "data": raster(encode(key, batch))}

    chain = Chain(init, kernels, encode, lambda x: x, null, "posterior", edge == "fixed", 0.0)
    return learned_chain(chain, (length,), num_steps, Figures(raster, figures), choices)


def betas(num_steps: int) -> np.ndarray:
    """β_t = 1/(T - t + 1), t = 1 .. T."""
    return 1 / np.arange(num_steps, 0, -1)


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/sohl_dickstein_heartbeat.py.

    Raises:
        InputError: on data that are not vectors of bits, a prior outside (0, 1), or a choice that does not exist.
    """
    setting = config.diffusion
    check_steps(setting)
    if config.data.levels != 2 or len(config.data.shape) != 1:
        levels, shape = config.data.levels, tuple(config.data.shape)
        raise InputError(
            f"a binomial diffusion needs vectors of bits: data.levels=2 and data.shape=(n,), not {levels} and {shape}"
        )
    registry.choose("diffusion.edge", setting.edge, ("fixed", "learned"))
    length = config.data.shape[0]
    process = processes.binomial(betas(setting.num_steps), setting.prior)
    network = MLP(tuple(config.net.features), length, config.net.num_knots)
    choices = chosen(config, process, "posterior")
    return binomial_diffusion(network, process, length, setting.num_steps, edge=setting.edge, choices=choices)


def raster(bits: Array) -> Grid:
    """Sequences (n, length) as the rows of one picture. A 1 is black."""
    return Grid(1.0 - 2.0 * bits[None, :, :, None], 1)
