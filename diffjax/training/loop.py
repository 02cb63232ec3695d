"""The training loop: restore if there is something to restore, step, log, save, evaluate.

Steps are counted by finished updates: after step n (n = 1, 2, ...) `state.step == n`, the checkpoint called n holds
that state, and the next batch is the first of `make_batches(n)`. A run is a function of its configuration and its data:
one which is killed and started again goes through the same states, bit for bit, as one which is not.

The host runs one step ahead of the devices, and the data one batch ahead of the host. Metrics stay on the device until
the next multiple of `log_every`, but are always looked at before a save or an evaluation: nothing that is not finite is
ever saved.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool
from tqdm import tqdm

from diffjax.errors import InputError
from diffjax.time_sampling import TimeSampler
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.feed import Feed
from diffjax.training.sharding import Layout, check_batch_size, parallelize
from diffjax.training.state import TrainState, init_state, optimizer
from diffjax.training.step import make_step

PATIENCE = 100  # bad steps in a row that are skipped before training stops


class TrainingStopped(Exception):
    """`stop` asked for it: the state after `step` steps is saved, and the same call goes on from there."""

    def __init__(self, step: int, directory: Path):
        super().__init__(f"stopped after step {step}, which is saved in {directory}; start again to go on")
        self.step = step


class TrainingDiverged(InputError):
    """The loss, the gradient or the parameters are bad at `step`; earlier checkpoints are untouched."""

    def __init__(self, step: int, what: str, checkpointer: Checkpointer):
        checkpointer.wait()
        good = checkpointer.latest_step()
        kept = (
            "no checkpoint had been saved yet"
            if good is None
            else f"the last good checkpoint, of step {good}, is kept in {checkpointer.directory}"
        )
        super().__init__(
            f"training diverged at step {step}: {what}; {kept}; "
            "lower training.learning_rate, set training.grad_clip, or training.on_bad_step = 'skip', to get past it"
        )
        self.step = step


def train(
    model: Any,
    config: TrainingConfig | Mapping[str, Any],
    make_batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    directory: str | Path,
    *,
    time_sampler: TimeSampler | None = None,
    meta: Mapping[str, Any] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_eval: Callable[[int, TrainState], None] | None = None,
    stop: Callable[[int], bool] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> TrainState:
    """Trains `model` to `config.steps` updates, from the newest checkpoint in `directory` if there is one.

    model         needs `init(key) -> params` and `loss(params, key, batch) -> (batch,)`
    config        the section `training` of a configuration, see `TrainingConfig`
    make_batches  `make_batches(n)` iterates over the batches of the steps n + 1, n + 2, ...: dicts of numpy arrays,
                  this process's part of the global batch; it must not write again to arrays it has handed out
    directory     of the checkpoints, nothing else is written
    time_sampler  how the times `batch["t"]` are drawn and weighted; None leaves it to the model
    meta          JSON saved with each checkpoint, beside `step` and `examples_seen`; the configuration, say
    on_start      called once, before the first step, with the number of the step that the run goes on from; at first 0
    on_log        called every `log_every` steps with the mean `loss` and `grad_norm` since the last call,
                  the `learning_rate`, `images_per_second` (evaluations and the compiling first step not counted),
                  `input_wait`, the fraction of that time spent waiting for data, and `skipped`, the number of bad
                  steps; the first time also `first_step_seconds`, from the call to the end of the first step
    on_eval       called every `eval_every` steps and at the end, with the state, which lies as `config.mesh` says;
                  it must not keep the state, whose memory the next step reuses
    stop          asked after each step, with its number, whether to save and leave; all processes must answer alike
    devices       all of them unless given

    Returns the last state. Raises `TrainingDiverged`, `TrainingStopped`, and `InputError` for a bad configuration or
    batch, or if no batch comes within `config.data_timeout` seconds.
    """
    began = time.perf_counter()
    config = training_config(config._asdict() if isinstance(config, TrainingConfig) else config)
    check_batch_size(config.batch_size, len(devices or jax.devices()), config.accumulate)
    tx = optimizer(config)
    step_fn = make_step(model, tx, config, time_sampler=time_sampler)
    layout = parallelize(step_fn, config.parallel, devices, config.mesh)
    # By name: under "rbg" keys vmap does not draw per example, and the result would depend on the layout.
    init_key, run_key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    wanted = abstract_state(layout, model, config, time_sampler)

    with Checkpointer(directory, config.keep_every) as checkpointer:
        examples_seen = 0
        if checkpointer.latest_step() is None:
            shardings = jax.tree.map(lambda x: x.sharding, wanted)
            state = jax.jit(lambda key: init_state(key, model, tx, time_sampler), out_shardings=shardings)(init_key)
        else:
            state, saved_meta = checkpointer.restore(wanted)
            examples_seen = saved_meta["examples_seen"]
        start = int(state.step)
        if start > config.steps:
            raise InputError(
                f"training.steps = {config.steps} lies before the checkpoint of step {start} in "
                f"{checkpointer.directory}; raise it, or use another workdir"
            )
        if on_start is not None:
            on_start(start)
        state = layout.place_state(state)
        feed = Feed(islice(make_batches(start), config.steps - start), config.data_timeout)
        metrics = _Metrics(config, checkpointer, feed, began)
        # Not on a terminal, a line now and then is enough.
        bar = tqdm(
            total=config.steps,
            initial=start,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=jax.process_index() != 0,
        )
        with bar, closing(feed):
            for step in range(start + 1, config.steps + 1):
                batch = feed.get(step)
                if batch is None:
                    raise InputError(f"the data ended before step {step}, but training.steps = {config.steps}")
                if step == start + 1:
                    _check_batch(batch, config)
                state, step_metrics = layout.run(state, run_key, layout.place_batch(batch))
                metrics.add(step, step_metrics)
                examples_seen += config.batch_size
                bar.update()

                last = step == config.steps
                if step % config.log_every == 0 or last:
                    logged = metrics.take()
                    bar.set_postfix({name: f"{logged[name]:.4g}" for name in ("loss", "images_per_second")})
                    if on_log is not None:
                        on_log(step, logged)
                stopped = stop is not None and stop(step) and not last
                if _due(step, config.save_every) or last or stopped:
                    metrics.check()
                    fetched = layout.fetch_state(state)
                    if not _all_finite((fetched.params, fetched.ema, fetched.opt_state)):
                        what = "the parameters or the optimiser's moments are not finite"
                        raise TrainingDiverged(step, what, checkpointer)
                    checkpointer.save(step, fetched, {**(meta or {}), "step": step, "examples_seen": examples_seen})
                if stopped:
                    checkpointer.wait()
                    raise TrainingStopped(step, checkpointer.directory)
                if on_eval is not None and _due(step, config.eval_every) and not last:
                    metrics.check()
                    on_eval(step, layout.fetch_state(state))
                    metrics.restart_clock()
        state = layout.fetch_state(state)
        if on_eval is not None:
            on_eval(config.steps, state)
    return state


def abstract_state(
    layout: Layout, model: Any, config: TrainingConfig, time_sampler: TimeSampler | None = None
) -> TrainState:
    """The shapes of a run's state, each with its place in the layout: what to restore a checkpoint into."""
    shapes = jax.eval_shape(lambda key: init_state(key, model, optimizer(config), time_sampler), jax.random.key(0))

    def place(x: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, layout.shardings(shapes))


class _Metrics:
    """Metrics since the last log: on the device until `check` or `take`, which stop at, or tell of, a bad step."""

    def __init__(self, config: TrainingConfig, checkpointer: Checkpointer, feed: Feed, began: float):
        self._config = config
        self._checkpointer = checkpointer
        self._feed = feed
        self._began = began
        self._skipped = self._in_a_row = 0
        self._waits: list[float] = []
        self._first_step_seconds: float | None = None
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._window: list[dict[str, float]] = []
        self._seconds: list[float] = []
        self._compiling = True
        self.restart_clock()

    def restart_clock(self) -> None:
        self._clock = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._pending.append((step, metrics))
        if len(self._pending) > 1:
            # Wait for the step before this one: the devices stay busy, and no more than two batches are in flight.
            jax.block_until_ready(self._pending[-2][1])
        elif self._compiling and not self._seconds:
            jax.block_until_ready(metrics)
            self._first_step_seconds = time.perf_counter() - self._began
        self._seconds.append(time.perf_counter() - self._clock)
        self._waits.append(self._feed.waited)
        self._feed.waited = 0.0
        self.restart_clock()

    def check(self) -> None:
        """Fetches what is pending; raises `TrainingDiverged` at the first bad step, or says that it was skipped."""
        fetched = jax.device_get([metrics for _, metrics in self._pending])
        for (step, _), metrics in zip(self._pending, fetched, strict=True):
            if metrics["good"]:
                self._window.append(metrics)
                self._in_a_row = 0
                continue
            name = "grad_norm" if np.isfinite(metrics["loss"]) else "loss"
            over = np.isfinite(metrics[name])
            limit = f", above training.grad_limit = {self._config.grad_limit:g}" if over else ""
            what = f"its {name} is {metrics[name]:g}{limit}"
            if self._config.on_bad_step == "stop":
                raise TrainingDiverged(step, what, self._checkpointer)
            self._skipped += 1
            self._in_a_row += 1
            if jax.process_index() == 0:
                tqdm.write(f"step {step} was skipped: {what}", file=sys.stderr)
            if self._in_a_row == PATIENCE:
                what = f"{what}, and the {PATIENCE - 1} steps before it were skipped, too"
                raise TrainingDiverged(step, what, self._checkpointer)
        self._pending = []

    def take(self) -> dict[str, float]:
        """The means since the last call, the newest learning rate and the speed."""
        self.check()
        compiled = 1 if self._compiling and len(self._seconds) > 1 else 0
        seconds = sum(self._seconds[compiled:])
        taken = {
            name: float(np.mean([m[name] for m in self._window])) if self._window else math.nan
            for name in ("loss", "grad_norm", "learning_rate")
        }
        if self._window:
            taken["learning_rate"] = float(self._window[-1]["learning_rate"])
        taken["images_per_second"] = self._config.batch_size * len(self._seconds[compiled:]) / seconds
        taken["input_wait"] = sum(self._waits[compiled:]) / seconds
        taken["skipped"] = self._skipped
        if self._first_step_seconds is not None:
            taken["first_step_seconds"] = self._first_step_seconds
        self._window, self._seconds, self._waits, self._compiling = [], [], [], False
        self._skipped, self._first_step_seconds = 0, None
        return taken


@jax.jit
def _all_finite(tree: Any) -> Bool[Array, ""]:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


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
