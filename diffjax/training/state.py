"""What a training run carries from step to step, and the optimiser that moves it.

With n = 0, 1, ... the number of updates made so far, an update is

    g      <- g min(1, c / |g|)                                  clip by the global norm c
    params <- params - lr_n Adam(g)                              Kingma & Ba 2015; beta = (0.9, 0.999), eps = 1e-8
    lr_n   =  learning_rate min(1, (n + 1) / warmup)             linear warm-up; the first step already moves
    ema    <- d_n ema + (1 - d_n) params                         d_n = min(ema_decay, (1 + n) / (10 + n))

The mean, the optimiser's moments and the arithmetic are in float32 at least, whatever type the parameters have. In 16
bits (1 - d) (params - ema) is lost beside ema, whose neighbours are 2^-8 or 2^-11 apart, and so is g^2 beside its mean.

The warm-up of the decay is TensorFlow's `ExponentialMovingAverage(num_updates)`: without it the mean would remember the
random initial parameters for 1 / (1 - ema_decay) steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffjax.memory import Memory
from diffjax.training.config import TrainingConfig


class Trainable(Protocol):
    """What training needs of a model."""

    @property
    def init(self) -> Callable[[Array], Any]: ...
    @property
    def loss(self) -> Callable[[Any, Any, Any], Array]: ...
    @property
    def memory(self) -> Memory | None: ...


class TrainState(NamedTuple):
    """A pytree of arrays: all that a checkpoint must hold for the run to go on as if it had never stopped."""

    step: Int[Array, ""]  # updates made so far
    params: Any
    ema: Any  # the running mean of params, float32 at least: what one evaluates and samples from
    opt_state: Any
    memory: Any  # what the model carries beside its parameters, None without any


def init_state(key: PRNGKeyArray, model: Trainable, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step; `ema` is a copy of the parameters, since both will be donated."""
    params = model.init(key)
    wide = widened(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, wide),
        opt_state=tx.init(wide),
        memory=None if model.memory is None else model.memory.init(params),
    )


def learning_rate(config: TrainingConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """The learning rate of the update which follows `step` updates."""
    return config.learning_rate * jnp.minimum(1.0, (jnp.asarray(step) + 1) / max(config.warmup, 1))


def optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Clipping by the global norm (`grad_clip`, 0 = off), then Adam with the warmed-up `learning_rate`."""
    clip = optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity()
    return optax.chain(clip, optax.adam(lambda step: learning_rate(config, step)))


def update_ema(config: TrainingConfig, step: Int[Array, ""] | int, ema: Any, params: Any) -> Any:
    """The running mean after the update number `step` (counted from 0) has given `params`."""
    step = jnp.asarray(step)
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    return jax.tree.map(
        lambda mean, new: mean + (1 - decay).astype(mean.dtype) * (new.astype(mean.dtype) - mean), ema, params
    )


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, added in the updates' type, in the type of the parameters."""
    return jax.tree.map(lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, updates)


def widened(tree: Any) -> Any:
    """Arrays of 16-bit floats as float32, all others as they are."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_narrow(x.dtype) else x, tree)


def is_narrow(dtype: Any) -> bool:
    """Whether it is a floating type of fewer than 32 bits."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4
