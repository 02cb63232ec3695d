"""One training step: a pure function of (state, key, batch), the same whatever devices the batch lies on.

The randomness of example i of step n is `fold_in(key_n, i)`, key_n derived from `fold_in(key, n)` and i the example's
place in the *global* batch. So dropout, noise, times and flips do not depend on how many devices or processes share the
batch, and a resumed run draws what the uninterrupted one would have drawn. The loss gets these keys, one per example.
(Calling it under `vmap` on batches of one would serve any loss, but costs 13% of a small U-Net's step on CPU.)

With a memory (`diffjax.memory`), the step draws what the examples get of it for the whole batch: times t_i, say, and
weights w_i. It then descends

    (1/N) sum_i w_i loss(x_i, t_i)

which stays an unbiased estimate of E_t[loss] when w_i is one over the density from which t_i came (Nichol & Dhariwal
2021, section 3.3). The memory then learns from the whole global batch, from every pair (t_i, loss_i).

With `accumulate` = a > 1, a parts of the batch are gone through one after the other and their gradients averaged: the
same step with the memory of a batch a times smaller. Part j has the examples j, j + a, ... of each device, none moves.

A step is bad if its loss or gradient is not finite, or the gradient's norm is above `grad_limit`. Where `on_bad_step`
is "skip", such a step leaves all but its own number as it was.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from diffjax import randomness
from diffjax.dtypes import as_float
from diffjax.training.config import TrainingConfig
from diffjax.training.state import Trainable, TrainState, apply_updates, learning_rate, update_ema, widened

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]
Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(model: Trainable, tx: optax.GradientTransformation, config: TrainingConfig) -> Step:
    """Returns `step(state, key, batch, axis_name=None, gather=...) -> (state, metrics)`.

    `key` is the run's key, the same at every step. `batch` is a dict of arrays with a leading batch axis: the global
    batch, or, inside `pmap` with `axis_name`, the device's share of it. `metrics` are device scalars: `loss` (weighted
    mean over the global batch, in the model's units), `grad_norm` (before clipping), `learning_rate`,
    and `good`, a boolean, see above.
    `gather` is put between the parameters as the state holds them, and the loss, where a mesh divides the state.
    """
    memory = model.memory

    def step(
        state: TrainState,
        key: PRNGKeyArray,
        batch: Batch,
        axis_name: str | None = None,
        gather: Callable[[Any], Any] = lambda params: params,
    ):
        n_local = next(iter(batch.values())).shape[0]
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * n_local
        memory_key, example_key = jax.random.split(jax.random.fold_in(key, state.step))
        keys = jax.vmap(lambda i: jax.random.fold_in(example_key, i))(first + jnp.arange(n_local))
        flip_keys, loss_keys = randomness.split(keys, 2)
        if config.flip:
            batch = {**batch, "image": _flip(flip_keys, batch["image"])}
        whole, weights, known = batch, jnp.ones(n_local), {}
        if memory is not None:
            # Every device draws for all examples: stratified times only make sense for the batch as a whole.
            drawn = memory.draw(state.memory, memory_key, n_local * shards)
            local = {name: jax.lax.dynamic_slice_in_dim(a, first, n_local) for name, a in drawn.items()}
            weights = local.pop("weight", weights)
            batch, known = {**batch, **local}, {"memory": gather(state.memory)}

        def mean_loss(params, part):
            keys, batch, weights = part
            losses = as_float(model.loss(gather(params), keys, {**batch, **known}))
            return jnp.mean(weights.astype(losses.dtype) * losses), losses

        (loss, losses), grads = _accumulated(
            jax.value_and_grad(mean_loss, has_aux=True), config.accumulate, state.params, (loss_keys, batch, weights)
        )
        if axis_name is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
            # What no memory reads of the whole batch is gathered by no device.
            losses, whole = jax.lax.all_gather((losses, whole), axis_name, tiled=True)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            updates, opt_state = tx.update(grads, state.opt_state, widened(state.params))
        params = apply_updates(state.params, updates)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            ema=update_ema(config, state.step, state.ema, params),
            opt_state=opt_state,
            memory=None
            if memory is None
            else memory.update(state.memory, jax.random.fold_in(memory_key, 1), params, {**whole, **drawn}, losses),
        )
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": learning_rate(config, state.step),
        }
        finite = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
        good = finite & (metrics["grad_norm"] <= (config.grad_limit or jnp.inf))
        metrics["good"] = good
        if config.on_bad_step == "skip":
            old_state = state._replace(step=state.step + 1)
            new_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new_state, old_state)
        return new_state, metrics

    return step


def _accumulated(loss_and_grad: Callable, parts: int, params: Any, batch: Any) -> Any:
    """((loss, losses), grads) of the batch, `parts` parts of it at a time; the gradients are of 32 bits at least."""
    if parts == 1:
        value, grads = loss_and_grad(params, batch)
        return value, widened(grads)
    # (n, ...) -> (n / parts, parts, ...): the leading axis, which devices share, keeps its order.
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
