"""The state of a training run, and the optimiser that updates it.

Let n = 0, 1, ... be the number of updates made so far. The next update is

    g      <- g min(1, c / |g|)                                  clip by the global norm c
    params <- params - lr_n (Adam(g) + weight_decay params)      Kingma & Ba 2015; beta = (0.9, 0.999), eps = 1e-8;
                                                                 with the decay, Loshchilov & Hutter 2019
    lr_n   =  learning_rate min(1, (n + 1) / warmup) decay_n     linear warm-up; already lr_0 is above 0; parts of
                                                                 the parameters may have their own lr and beta
    decay_n = 1                                                  "constant"
              (1 + cos(π m / (steps - warmup))) / 2              "cosine", m = n - warmup steps after the warm-up
              √(warmup / max(n + 1, warmup))                     "inverse_sqrt" (Vaswani et al. 2017, section 5.3)
    ema    <- d_n ema + (1 - d_n) params                         d_n = min(ema_decay, (1 + n) / (10 + n))
    and one more average for each of `ema_widths`                see diffjax.training.averages

The averages, the optimiser's moments and the arithmetic have at least float32, whatever type the parameters have. In 16
bits, neighbouring numbers are a relative 2^-8 or 2^-11 apart. Then (1 - d) (params - ema) would be rounded away when
added to ema, and so would g^2 when added to its mean.

The warm-up of ema's decay d_n is that of TensorFlow's `ExponentialMovingAverage(num_updates)`. Without it the mean
would remember the random initial parameters for 1 / (1 - ema_decay) steps.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.extras import needs_run
from diffjax.memory import Memory
from diffjax.training.averages import exponent, moved, share_of_step
from diffjax.training.config import Part, TrainingConfig

with needs_run():
    import optax


class Trainable(Protocol):
    """What training needs from a system.

    init(key) -> params
    loss(params, keys, batch) -> (batch,), the loss to minimise; keys has one key for each example
    memory: what the system carries from step to step; the loss finds it in batch["memory"]; None if there is nothing
    """

    @property
    def init(self) -> Callable[[PRNGKeyArray], Any]: ...

    @property
    def loss(self) -> Callable[[Any, Array, Any], Array]: ...

    @property
    def memory(self) -> Memory | None: ...


class TrainState(NamedTuple):
    """A pytree of arrays: everything a checkpoint needs so that the run can continue as if it had never stopped."""

    step: Int[Array, ""]  # updates made so far
    params: Any
    ema: Any  # the running mean of params, at least float32: use it to evaluate and to sample
    opt_state: Any
    memory: Any  # what the system carries beside its parameters, None if there is nothing
    averages: tuple[Any, ...] = ()  # like ema, one for each of training.ema_widths


def init_state(
    key: PRNGKeyArray, model: Trainable, tx: optax.GradientTransformation, widths: tuple[float, ...] = ()
) -> TrainState:
    """The state before the first step, with an average for each of the `widths`.

    `ema`, `averages` and `memory` hold copies of the parameters, because all of them will be donated.
    """
    params = model.init(key)
    wide = widened(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, wide),
        opt_state=tx.init(wide),
        memory=None if model.memory is None else jax.tree.map(jnp.copy, model.memory.init(params)),
        averages=tuple(jax.tree.map(jnp.copy, wide) for _ in widths),
    )


def learning_rate(config: TrainingConfig, step: Int[Array, ""] | int, part: Part | None = None) -> Float[Array, ""]:
    """The learning rate of the update after `step` updates, for `part`, or for parts without their own settings."""
    peak, warmup, *_ = part or part_of(config)
    n, warmup = jnp.asarray(step), max(warmup, 1)
    rate = peak * jnp.minimum(1.0, (n + 1) / warmup)
    if config.decay == "cosine":
        return rate * optax.cosine_decay_schedule(1.0, config.steps - config.warmup)(jnp.maximum(n - config.warmup, 0))
    if config.decay == "inverse_sqrt":
        return rate * jnp.sqrt(warmup / jnp.maximum(n + 1, warmup))
    return rate


def optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Clipping by the global norm (`grad_clip`, 0 = off), then Adam. `config.parts` may have their own settings.

    The norm is of the gradient of all parts together. A frozen part has no gradient and no moments.
    `init` raises `InputError` if `config.parts` names a part that the parameters do not have.
    """
    clip = optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity()
    return optax.chain(clip, _by_part(config) if config.parts else _adam(config, part_of(config)))


def part_of(config: TrainingConfig, name: str = "") -> Part:
    """The settings of the part `name` of the parameters: its own fields, and the run's for all others."""
    return Part(config.learning_rate, config.warmup)._replace(**config.parts.get(name, {}))


def _adam(config: TrainingConfig, part: Part) -> optax.GradientTransformation:
    def rate(step: Array) -> Array:
        return learning_rate(config, step, part)

    if part.learning_rate == 0:
        return optax.set_to_zero()
    if config.weight_decay:
        return optax.adamw(rate, part.b1, part.b2, weight_decay=config.weight_decay)
    return optax.adam(rate, part.b1, part.b2)


def _by_part(config: TrainingConfig) -> optax.GradientTransformation:
    """An optimiser that updates each top-level part of the parameters separately."""

    def init(params: Any) -> dict[str, Any]:
        check_parts(config, params)
        return {name: _adam(config, part_of(config, name)).init(part) for name, part in params.items()}

    def update(grads: Any, state: Any, params: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        moved = {
            name: _adam(config, part_of(config, name)).update(grads[name], state[name], params and params[name])
            for name in grads
        }
        return {name: updates for name, (updates, _) in moved.items()}, {name: new for name, (_, new) in moved.items()}

    return optax.GradientTransformation(init, update)


def check_parts(config: TrainingConfig, params: Any) -> None:
    """Raises `InputError` unless `config.parts` are all among the top-level names of `params` (arrays or shapes)."""
    there = list(params) if isinstance(params, Mapping) else []
    for name in config.parts:
        if name not in there:
            parts = f"its parts are {', '.join(map(str, there))}" if there else "it has one part without a name"
            raise InputError(f"training.parts.{name} is no part of this system's parameters; {parts}")


def without_frozen(config: TrainingConfig, params: Any) -> Any:
    """`params` with no gradient through the frozen parts (learning rate 0)."""
    frozen = [name for name in config.parts if part_of(config, name).learning_rate == 0]
    return {**params, **jax.lax.stop_gradient({name: params[name] for name in frozen})} if frozen else params


def update_ema(config: TrainingConfig, step: Int[Array, ""] | int, ema: Any, params: Any) -> Any:
    """The running mean after update number `step` (counted from 0), which has given `params`."""
    step = jnp.asarray(step)
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    return moved(ema, params, 1 - decay)


def update_averages(
    config: TrainingConfig, step: Int[Array, ""] | int, averages: tuple[Any, ...], params: Any
) -> tuple[Any, ...]:
    """The same for the averages of `config.ema_widths`."""
    shares = [share_of_step(exponent(width), step + 1) for width in config.ema_widths]
    return tuple(moved(average, params, share) for average, share in zip(averages, shares, strict=True))


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, added in the updates' dtype and returned in the parameters' dtype."""
    return jax.tree.map(lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, updates)


def widened(tree: Any) -> Any:
    """Arrays of 16-bit floats as float32, all others as they are."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_narrow(x.dtype) else x, tree)


def is_narrow(dtype: Any) -> bool:
    """Whether `dtype` is a floating type of fewer than 32 bits."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4
