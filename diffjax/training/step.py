"""One training step: a pure function of (state, key, batch). The result does not depend on the devices of the batch.

Example i of step n uses the key `fold_in(key_n, i)`. key_n is derived from `fold_in(key, n)`, and i is the example's
place in the *global* batch. So dropout, noise, times and flips do not depend on how many devices or processes share the
batch, and a resumed run draws the same as an uninterrupted one. The loss gets these keys, one per example. (Calling the
loss under `vmap` on batches of one would work for any loss, but costs 13% of a small U-Net's step on CPU.)

A system's memory from step to step (`diffjax.memory`) is sampled and updated for the global batch as a whole.

With `accumulate` = a > 1, the batch is divided into a parts, which are processed one after the other. Their gradients
are averaged. This is the same step with the memory of a batch a times smaller. Part j has the examples j, j + a, ... of
each device, so no example moves between devices.

A step is bad if its loss or gradient is not finite, or if the gradient's norm is above `grad_limit`. If `on_bad_step`
is "skip", a bad step changes nothing in the state but the step number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffjax import randomness
from diffjax.dtypes import as_float
from diffjax.extras import needs_run
from diffjax.training.config import TrainingConfig
from diffjax.training.state import (
    Trainable,
    TrainState,
    apply_updates,
    learning_rate,
    update_averages,
    update_ema,
    widened,
    without_frozen,
)

with needs_run():
    import optax

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]
Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(model: Trainable, tx: optax.GradientTransformation, config: TrainingConfig) -> Step:
    """Returns `step(state, key, batch, axis_name=None, gather=...) -> (state, metrics)`.

    `key` is the run's key, the same at every step. `batch` is a dict of arrays with a leading batch axis: the global
    batch, or, inside `pmap` with `axis_name`, the device's share of it. `metrics` are device scalars: `loss` (weighted
    mean over the global batch, in the model's units), `grad_norm` (before clipping), `learning_rate`, and the boolean
    `good`, which is False for a bad step (see the module's docstring). If a mesh divides the state, `gather` makes the
    parameters and the memory whole before the loss uses them.
    """
    memory = model.memory

    def step(
        state: TrainState,
        key: PRNGKeyArray,
        batch: Batch,
        axis_name: str | None = None,
        gather: Callable[[Any], Any] = lambda tree: tree,
    ) -> tuple[TrainState, Metrics]:
        n_local = next(iter(batch.values())).shape[0]
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * n_local
        step_key = jax.random.fold_in(key, state.step)
        draw_key, example_key = jax.random.split(step_key)
        keys = jax.vmap(lambda i: jax.random.fold_in(example_key, i))(first + jnp.arange(n_local))
        flip_keys, loss_keys = randomness.split(keys, 2)
        if config.flip:
            batch = {**batch, "image": _flip(flip_keys, batch["image"])}
        # Every device draws for the whole batch: stratified times only make sense together.
        drawn = {} if memory is None else memory.draw(state.memory, draw_key, n_local * shards)
        share = {name: jax.lax.dynamic_slice_in_dim(x, first, n_local) for name, x in drawn.items()}
        weights = share.get("weight", jnp.ones(n_local))
        remembered = {} if memory is None else {"memory": gather(state.memory)}

        def mean_loss(params: Any, part: Any) -> tuple[Array, Array]:
            keys, batch, weights = part
            losses = as_float(model.loss(gather(without_frozen(config, params)), keys, batch | remembered))
            return jnp.mean(weights.astype(losses.dtype) * losses), losses

        (loss, losses), grads = _accumulated(
            jax.value_and_grad(mean_loss, has_aux=True),
            config.accumulate,
            state.params,
            (loss_keys, batch | share, weights),
        )
        if axis_name is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
            losses, batch = jax.lax.all_gather((losses, batch), axis_name, tiled=True)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            updates, opt_state = tx.update(grads, state.opt_state, widened(state.params))
        params = apply_updates(state.params, updates)
        new_memory = None
        if memory is not None:
            # Differs from all keys that `split` makes, for either value of `jax_threefry_partitionable`.
            update_key = jax.random.fold_in(step_key, 4)
            new_memory = memory.update(state.memory, update_key, params, batch | drawn, losses)
            if memory.hand_over is not None:
                params = memory.hand_over(new_memory, params)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            ema=update_ema(config, state.step, state.ema, params),
            opt_state=opt_state,
            memory=new_memory,
            averages=update_averages(config, state.step, state.averages, params),
        )
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        good = finite & (grad_norm <= (config.grad_limit or jnp.inf))
        if config.on_bad_step == "skip":
            old_state = state._replace(step=state.step + 1)
            new_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new_state, old_state)
        rate = learning_rate(config, state.step)
        return new_state, {"loss": loss, "grad_norm": grad_norm, "learning_rate": rate, "good": good}

    return step


def _accumulated(loss_and_grad: Callable, parts: int, params: Any, batch: Any) -> Any:
    """((loss, losses), grads) of the batch, computed in `parts` parts. The gradients have at least 32 bits."""
    if parts == 1:
        value, grads = loss_and_grad(params, batch)
        return value, widened(grads)
    # (n, ...) -> (n / parts, parts, ...): the leading axis, which is divided over devices, keeps its order.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, part):
        value, grads = loss_and_grad(params, part)
        return jax.tree.map(lambda a, b: a + b / parts, total, widened(grads)), value

    grads, (loss, losses) = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, widened(params)), split)
    return (loss.mean(), losses.swapaxes(0, 1).reshape(-1)), grads


def _flip(keys: PRNGKeyArray, images: Array) -> Array:
    """Each image (batch, height, width, channels) mirrored left-right with probability 1/2."""
    mirror = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirror[:, None, None, None], images[:, :, ::-1], images)
