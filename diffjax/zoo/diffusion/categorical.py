"""Categorical diffusion: D3PM (Austin et al. 2021) and masked diffusion (MDLM, MD4: Sahoo, Shi et al. 2024) of levels.

The network gives logits of p(x_0 | x_t) at every place. What x_t itself says of its place is added to them,

    log p̂(x_0^i = k | x_t) = logits_k + log q(x_t^i | x_0^i = k) + const,

so the network learns what the other places say. (Of a masked place q says nothing; of another it says all.) Training
descends the bound: of continuous time (`categorical_bound`), or of a chain (`bounds`). Images of levels and sequences
of several voices are the same to it: arrays (H, W, C) of classes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax import (
    any_order,
    bounds,
    categorical_bound,
    coding,
    losses,
    predictions,
    processes,
    randomness,
    registry,
    samplers,
    schedules,
)
from diffjax import time_sampling as times_of
from diffjax.autoregressive import Conditionals
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.code import Code
from diffjax.evaluation.ngram import NGram
from diffjax.memory import of_times
from diffjax.nets.classes import OfClasses
from diffjax.zoo.diffusion import networks
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.model import Batch, Model, bound_of, image_of

KINDS = ("uniform", "masked", "gaussian")


class Denoiser(NamedTuple):
    """The network and the process. The fields are arguments of `categorical_diffusion`."""

    network: nn.Module
    process: processes.Categorical
    shape: tuple[int, int, int]
    num_steps: int
    num_terms: int

    def init(self, key: Array) -> Any:
        return self.network.init(key, jnp.zeros((1, *self.shape), int), jnp.zeros(1), None, None)["params"]

    def predict(self, params: Any, dropout: randomness.Keys | None = None) -> predictions.Predict:
        def fn(xt: Array, t: Array) -> Array:
            out = jnp.asarray(self.network.apply({"params": params}, xt, 1000.0 * t - 1.0, None, dropout))
            return out if self.process.masked else out + self.process.evidence(xt, t)

        return predictions.logits(fn)

    def loss(self, params: Any, key: randomness.Keys, batch: Batch) -> Array:
        """The bound's cost at one time of each example and the prior's, in bits/dim."""
        x0 = self.encode(batch)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch.get("t") if isinstance(batch, dict) else None
        u = randomness.uniform(time_key, (len(x0),)) if given is None else given
        said, num_steps = self.predict(params, dropout_key), self.num_steps
        if num_steps:
            t = jnp.ceil(u * num_steps - 1e-4).clip(1) / num_steps
            cost = losses.vlb(self.process, said, noise_key, x0, t - 1 / num_steps, t, num_steps)
        else:
            xt = self.process.marginal(x0, u).sample(noise_key)
            cost = categorical_bound.diffusion_cost(self.process, said, x0, xt, u)
        return bounds.bits_per_dim(cost + categorical_bound.prior_cost(self.process, x0), self.shape)

    def terms(self, params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        """The bound's costs in nats."""
        x0, said = self.encode(batch), self.predict(params)
        if self.num_steps:
            grid = jnp.arange(self.num_steps + 1) / self.num_steps
            found = bounds.diffusion(self.process, said, key, x0, grid, num_terms=self.num_terms or None)
            parts = {"diffusion": found.diffusion.sum(0), "reconstruction": found.reconstruction}
            return {"prior": found.prior} | parts
        integral = categorical_bound.integral(self.process, said, key, x0, self.num_terms)
        return {"prior": categorical_bound.prior_cost(self.process, x0), "diffusion": integral}

    def null(self, batch: Batch) -> Array:
        """Independent places of equal classes, in nats."""
        return jnp.full(len(image_of(batch)), -math.prod(self.shape) * math.log(self.process.num_classes))

    def encode(self, batch: Batch) -> Array:
        return as_classes(image_of(batch), self.process.num_classes)

    def decode(self, x: Array) -> Array:
        """Classes as floats in [-1, 1]; a mask is 0."""
        num_classes = self.process.num_classes
        return jnp.where(x < num_classes, 2.0 * x / (num_classes - 1) - 1.0, 0.0)


def categorical_diffusion(
    network: nn.Module,
    process: processes.Categorical,
    shape: tuple[int, int, int],
    *,
    num_steps: int = 0,
    time_sampler: times_of.TimeSampler | None = None,
    stepper: samplers.Stepper | None = None,
    times: Array | None = None,
    num_terms: int = 100,
) -> Model:
    """Diffusion of arrays (H, W, C) of the process's classes.

    Args:
        network: (x_t, position 1000 t - 1, None, dropout keys) -> logits (batch, H, W, C, K), see `nets.classes`.
        num_steps: 0 for continuous time; otherwise the number of steps of the process's chain.
        time_sampler: how training draws its times; evenly spread unless given.
        stepper, times: what samples are drawn by, times descending from 1 to 0; `ancestral` in 64 steps unless given.
        num_terms: times at which the bound is evaluated for each example, one in each of as many strata; of a chain 0
            is all its steps.
    """
    denoiser = Denoiser(network, process, shape, num_steps, num_terms)
    stepper = samplers.ancestral(process) if stepper is None else stepper
    times = jnp.linspace(1.0, 0.0, 65) if times is None else times
    if time_sampler is None:
        time_sampler = times_of.low_discrepancy(num_steps) if num_steps else times_of.continuous(0.0)

    def drawn(params: Any, key: Array, num: int, save: Any = None) -> Any:
        return samplers.sample(stepper, denoiser.predict(params), key, times, (num, *shape), save)

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """Rows of one sample at ten moments from t = 1 to 0. A mask is grey."""
        path = jax.jit(lambda params: drawn(params, key, 8, lambda state: state.x)[1])(params)
        shown = path[np.linspace(0, len(path) - 1, 10).astype(int)].swapaxes(0, 1)
        return {"reverse_process": Grid(denoiser.decode(shown.reshape(-1, *shape)), shown.shape[1])}

    def in_order(params: Any) -> Conditionals:
        return any_order.masked_conditionals(process, denoiser.predict(params), shape, np.arange(math.prod(shape)))

    codes = (Code(lambda params: coding.Autoregressive(in_order, params, shape)),) if process.masked else ()
    return Model(
        denoiser.init,
        denoiser.loss,
        bound_of(denoiser.terms),
        lambda params, key, num: denoiser.decode(drawn(params, key, num)),
        lambda params: (process, denoiser.predict(params)),
        of_times(time_sampler),
        measures=(
            Bound(denoiser.terms, denoiser.null),
            NGram(process.num_classes, partial(np.asarray, dtype=np.uint8)),
            *codes,
        ),
        figures=Figures(own=figures),
    )


def conditionals(model: Model, params: Any, shape: tuple[int, ...], order: Any = None) -> Conditionals:
    """The masked model as an autoregressive one, in the given order of its places; in C order unless given."""
    if model.kernels is None:
        raise InputError("conditionals needs a categorical diffusion, and this model has no kernels")
    process, predict = model.kernels(params)
    if not isinstance(process, processes.Categorical):
        raise InputError(f"conditionals needs a categorical diffusion, not a process {type(process).__name__}")
    return any_order.masked_conditionals(
        process, predict, shape, np.arange(math.prod(shape)) if order is None else order
    )


def as_classes(x: Any, num_classes: int) -> Array:
    """Levels 0 .. K - 1, or floats in [-1, 1] that are levels, as int32 classes.

    Raises:
        InputError: on a value that is no class, where it can be seen: not under `jit`.
    """
    x = jnp.asarray(x)
    level = x if jnp.issubdtype(x.dtype, jnp.integer) else (x + 1.0) * (num_classes - 1) / 2
    if not isinstance(level, jax.core.Tracer):
        values = np.asarray(level)
        wrong = values[(values < -0.01) | (values > num_classes - 0.99) | (np.abs(values - np.round(values)) > 0.01)]
        if len(wrong):
            raise InputError(
                f"the batch has the level {wrong[0]:g}, which is none of data.levels={num_classes} classes, 0 .."
                f" {num_classes - 1}: set data.levels to the number of values of your data"
            )
    return jnp.round(level).astype(jnp.int32)


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/masked_digits.py for the fields.

    Raises:
        InputError: on an unknown choice, a masked diffusion whose schedule never masks, or values that cannot be.
    """
    setting, sampling, shape = config.diffusion, config.sampling, tuple(config.data.shape)
    process = _process(config)
    steps = _steps(config)
    stepper = samplers.make(sampling.sampler, process, sampling)
    net: nn.Module = networks.of_images(config.net, shape[-1] * config.data.levels)
    network = OfClasses(net, config.data.levels, process.num_states, config.net.class_features)
    time_sampler: Callable[..., times_of.TimeSampler] | None = None
    if setting.num_steps:
        time_sampler = registry.choose("diffusion.time_sampling", setting.time_sampling, times_of.TIME_SAMPLERS)
    return categorical_diffusion(
        network,
        process,
        shape,
        num_steps=setting.num_steps,
        time_sampler=time_sampler(setting.num_steps) if time_sampler else None,
        stepper=stepper,
        times=jnp.arange(steps, -1, -1) / steps,
        num_terms=config.evaluation.num_terms,
    )


def _process(config: Any) -> processes.Categorical:
    setting, shape, levels = config.diffusion, tuple(config.data.shape), config.data.levels
    if len(shape) != 3 or levels < 2:
        raise InputError(
            f"categorical diffusion takes arrays (H, W, C) of at least 2 levels: data.shape={shape} of"
            f" data.levels={levels} are not; give a sequence as (length, 1, 1)"
        )
    registry.choose("diffusion.kind", setting.kind, KINDS)
    if isinstance(setting.num_steps, bool) or not isinstance(setting.num_steps, int) or setting.num_steps < 0:
        raise InputError(f"diffusion.num_steps={setting.num_steps!r} must be a number of steps, or 0 for none")
    among = schedules.CHAINS if setting.num_steps else schedules.CONTINUOUS
    schedule = schedules.make(setting.schedule, setting, among, "diffusion.schedule")
    if isinstance(schedule, schedules.Discrete) and setting.get("zero_terminal_snr", False):
        schedule = schedules.zero_terminal_snr(schedule)
    if not isinstance(schedule, schedules.VariancePreserving):
        raise InputError(
            f"diffusion.schedule={setting.schedule!r} has no rate of jumps: take 'log_linear', 'vp' or a chain"
        )
    if setting.kind == "masked" and not schedules.no_signal_at_end(schedule):
        raise InputError(
            f"diffusion.schedule={setting.schedule!r} never masks everything: of diffusion.kind='masked' it must end"
            " with alpha = 0; take 'log_linear', or a chain with diffusion.zero_terminal_snr=True"
        )
    return processes.categorical(schedule, levels, setting.kind, setting.get("width", 1.0))


def _steps(config: Any) -> int:
    setting, sampling, places = config.diffusion, config.sampling, math.prod(config.data.shape)
    for field, value, least in (
        ("sampling.steps", sampling.steps, 1),
        ("evaluation.num_terms", config.evaluation.num_terms, 0 if setting.num_steps else 1),
        ("net.class_features", config.net.get("class_features"), 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{field}={value!r} must be an integer of at least {least}")
    if sampling.sampler == "first_hitting" and sampling.steps < places:
        raise InputError(
            f"sampling.steps={sampling.steps} leaves masks: sampling.sampler='first_hitting' needs a step for each of"
            f" the {places} places"
        )
    return sampling.steps
