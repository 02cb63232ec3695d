"""The training loop: restore if there is something to restore, step, log, save, evaluate.

A step number counts finished updates. After step n (n = 1, 2, ...) `state.step == n`, the checkpoint called n holds
that state, and the next batch is the first of `make_batches(n)`. A run is a function of its configuration and its data:
a run that is killed and started again goes through the same states, bit for bit, as an uninterrupted run.

The host runs one step ahead of the devices, and the data one batch ahead of the host. Metrics stay on the device until
the next multiple of `log_every`. They are also checked before every save and every evaluation, so a state with values
that are not finite is never saved.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.feed import Feed
from diffjax.training.metrics import Metrics, TrainingDiverged
from diffjax.training.progress import Bar
from diffjax.training.sharding import Layout, check_batch_size, parallelize
from diffjax.training.state import Trainable, TrainState, init_state, optimizer
from diffjax.training.step import make_step


class TrainingStopped(Exception):
    """`stop` ended the training. The state after `step` steps is saved, and the same call continues from there."""

    def __init__(self, step: int, directory: Path):
        super().__init__(f"stopped after step {step}, which is saved in {directory}; start again to go on")
        self.step = step


def train(
    model: Trainable,
    config: TrainingConfig | Mapping[str, Any],
    make_batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    directory: str | Path,
    *,
    meta: Mapping[str, Any] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_eval: Callable[[int, TrainState], None] | None = None,
    stop: Callable[[int], bool] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> TrainState:
    """Trains `model` to `config.steps` updates, from the newest checkpoint in `directory` if there is one.

    model         needs `init`, `loss` and `memory`, see `Trainable`
    config        the section `training` of a configuration, see `TrainingConfig`
    make_batches  `make_batches(n)` iterates over the batches of the steps n + 1, n + 2, ...: dicts of numpy arrays,
                  this process's part of the global batch; it must not modify an array after it has yielded it
    directory     of the checkpoints, nothing else is written
    meta          JSON saved with each checkpoint beside `step` and `examples_seen`, such as the configuration
    on_start      called once before the first step, with the step that the run continues from: 0 in a new run
    on_log        called every `log_every` steps with the mean `loss` and `grad_norm` since the last call,
                  the `learning_rate`, `images_per_second` (evaluations and the compiling first step not counted),
                  `input_wait`, the fraction of that time spent waiting for data, and `skipped`, the number of bad
                  steps; the first time also `first_step_seconds`, from the call to the end of the first step
    on_eval       called every `eval_every` steps and at the end, with the state, placed as `config.mesh` says;
                  it must not keep the state, because the next step reuses its memory
    stop          called after each step with its number; if it returns True, the run saves and ends;
                  all processes must get the same answer
    devices       all of them unless given

    Returns the last state. Raises `TrainingDiverged`, `TrainingStopped`, and `InputError` if the configuration or a
    batch is wrong, or if no batch comes within `config.data_timeout` seconds.
    """
    began = time.perf_counter()
    config = training_config(config._asdict() if isinstance(config, TrainingConfig) else config)
    check_batch_size(config.batch_size, len(devices or jax.devices()), config.accumulate)
    layout = parallelize(make_step(model, optimizer(config), config), config.parallel, devices, config.mesh)
    # Always threefry: with "rbg" keys vmap does not draw per example, and the result would depend on the layout.
    init_key, run_key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    wanted = abstract_state(layout, model, config)

    with Checkpointer(directory, config.keep_every) as checkpointer:
        state, examples_seen = _restored_or_new(checkpointer, wanted, model, config, init_key)
        start = int(state.step)
        if on_start is not None:
            on_start(start)
        state = layout.place_state(state)
        feed = Feed(islice(make_batches(start), config.steps - start), config.data_timeout)
        with Bar(config, start, on_eval is not None) as bar, closing(feed):
            metrics = Metrics(config, checkpointer, feed, bar.say, began)
            for step in range(start + 1, config.steps + 1):
                batch = _batch(feed, step, config, check=step == start + 1)
                state, step_metrics = layout.run(state, run_key, layout.place_batch(batch))
                metrics.add(step, step_metrics)
                examples_seen += config.batch_size
                bar.stepped(step)

                last = step == config.steps
                if last or _due(step, config.log_every):
                    (on_log or _ignore)(step, bar.shown(metrics.take()))
                stopped = stop is not None and stop(step) and not last
                if last or stopped or _due(step, config.save_every):
                    metrics.check()
                    seen = {"step": step, "examples_seen": examples_seen}
                    _save(checkpointer, layout.fetch_state(state), {**(meta or {}), **seen})
                if stopped:
                    checkpointer.wait()
                    raise TrainingStopped(step, checkpointer.directory)
                if on_eval is not None and not last and _due(step, config.eval_every):
                    metrics.check()
                    with bar.time_left.evaluating():
                        on_eval(step, layout.fetch_state(state))
                    metrics.restart_clock()
        state = layout.fetch_state(state)
        if on_eval is not None:
            on_eval(config.steps, state)
    return state


def abstract_state(layout: Layout, model: Trainable, config: TrainingConfig) -> TrainState:
    """The shapes of a run's state with their shardings in the layout. Checkpoints are restored into these."""
    shapes = jax.eval_shape(lambda key: init_state(key, model, optimizer(config), config.ema_widths), jax.random.key(0))

    def place(x: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, layout.shardings(shapes))


def _restored_or_new(
    checkpointer: Checkpointer, wanted: TrainState, model: Trainable, config: TrainingConfig, key: PRNGKeyArray
) -> tuple[TrainState, int]:
    """The state to start from (the newest checkpoint if there is one), and the number of examples it has seen."""
    if checkpointer.latest_step() is None:
        places = jax.tree.map(lambda x: x.sharding, wanted)
        new = jax.jit(lambda key: init_state(key, model, optimizer(config), config.ema_widths), out_shardings=places)
        return new(key), 0
    state, meta = checkpointer.restore(wanted)
    if state.step > config.steps:
        raise InputError(
            f"training.steps = {config.steps} lies before the checkpoint of step {state.step} in "
            f"{checkpointer.directory}; raise it, or use another workdir"
        )
    return state, meta["examples_seen"]


def _batch(feed: Feed, step: int, config: TrainingConfig, check: bool) -> dict[str, np.ndarray]:
    batch = feed.get(step)
    if batch is None:
        raise InputError(f"the data ended before step {step}, but training.steps = {config.steps}")
    if check:
        _check_batch(batch, config)
    return batch


def _save(checkpointer: Checkpointer, state: TrainState, meta: dict[str, Any]) -> None:
    if not _all_finite((state.params, state.ema, state.averages, state.opt_state, state.memory)):
        what = "the parameters or the optimiser's moments, or the memory, are not finite"
        raise TrainingDiverged(meta["step"], what, checkpointer)
    checkpointer.save(meta["step"], state, meta)


@jax.jit
def _all_finite(tree: Any) -> Bool[Array, ""]:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def _ignore(step: int, logged: dict[str, float]) -> None:
    """The default `on_log`."""


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check_batch(batch: dict[str, np.ndarray], config: TrainingConfig) -> None:
    for name, x in batch.items():
        if x.shape[0] * jax.process_count() != config.batch_size:
            raise InputError(
                f"the data gives {x.shape[0]} examples of {name!r} in each of {jax.process_count()} processes, "
                f"but training.batch_size = {config.batch_size}"
            )
    if config.flip and ("image" not in batch or batch["image"].ndim != 4):
        raise InputError(
            "training.flip = True needs batches with image (batch, height, width, channels); set it to False"
        )
