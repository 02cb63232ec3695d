"""Binomial diffusion (Sohl-Dickstein et al. 2015, section 2.4 and appendix B.2): bits that are flipped into coins.

β_t = 1/(T - t + 1), so that a T-th of what is left of x_0 is lost in every step; the network, sigmoid layers with a
read-out per step, gives the log-odds of x_0. The reverse kernel mixes the posteriors over the x_0 it believes in,
which of all kernels that treat bits apart is the best one can do if that belief is right.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import predictions, processes, randomness, samplers
from diffjax.errors import InputError
from diffjax.nets.vectors import MLP
from diffjax.zoo.diffusion.learned_chain import Chain, make_model
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.model import Batch, Model


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/sohl_dickstein_heartbeat.py.

    Raises:
        InputError: on data that are not vectors of bits, a prior outside (0, 1), or a choice that does not exist.
    """
    setting = config.diffusion
    if config.data.levels != 2 or len(config.data.shape) != 1:
        levels, shape = config.data.levels, tuple(config.data.shape)
        raise InputError(
            f"a binomial diffusion needs vectors of bits: data.levels=2 and data.shape=(n,), not {levels} and {shape}"
        )
    if setting.edge not in ("fixed", "learned"):
        raise InputError(f"diffusion.edge must be 'fixed' or 'learned', not {setting.edge!r}")
    length = config.data.shape[0]
    process = processes.binomial(1 / np.arange(setting.num_steps, 0, -1), setting.prior)
    net = MLP(tuple(config.net.features), length, config.net.num_knots)
    first = 1.5 / setting.num_steps  # between the times of the first and of the second step

    def init(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, length)), jnp.ones(1))["params"]

    def kernels(params: Any) -> tuple[processes.Binomial, predictions.Predict]:
        def fn(xt: Array, t: Array) -> Array:
            logits = process.prior(xt.shape).logits + jnp.asarray(net.apply({"params": params}, 2.0 * xt - 1.0, t))
            if setting.edge == "learned":
                return logits
            # In equilibrium the forward step is its own reversal.
            return jnp.where((t < first)[:, None], process.transition(xt, 0.0, t).logits, logits)

        return process, predictions.logits(fn)

    def encode(key: randomness.Keys, batch: Batch) -> Array:
        bits = jnp.asarray(batch["image"] if isinstance(batch, dict) else batch)
        if not isinstance(bits, jax.core.Tracer) and not ((bits == 0) | (bits == 1)).all():
            raise InputError("a binomial diffusion takes bits, but the batch has values other than 0 and 1")
        return bits.astype(float)

    def null(batch: Batch) -> Array:
        x0 = encode(jax.random.key(0), batch)
        return process.prior(x0.shape).log_prob(x0).sum(1)

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """One chain of each of 16 sequences, from coins to heartbeats: a row a moment, and the data beside."""
        stepper = samplers.ancestral(process)
        times = jnp.arange(setting.num_steps, -1, -1) / setting.num_steps
        _, path = samplers.sample(stepper, kernels(params)[1], key, times, (16, length), lambda state: state.x)
        shown = path[jnp.linspace(0, len(path) - 1, 60).astype(int)].swapaxes(0, 1)
        return {"reverse_process": Grid(1.0 - 2.0 * shown[..., None], 8), "data": raster(encode(key, batch))}

    chain = Chain(init, kernels, encode, lambda x: x, "posterior", setting.edge == "fixed", 0.0)
    return make_model(config, chain, null, Figures(raster, figures))


def raster(bits: Array) -> Grid:
    """Sequences (n, length) as the rows of one picture, a 1 in black."""
    return Grid(1.0 - 2.0 * bits[None, :, :, None], 1)
