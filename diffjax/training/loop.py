"""The training loop: restore if there is something to restore, step, log, save, evaluate.

Steps are counted by finished updates: after step n (n = 1, 2, ...) `state.step == n`, the checkpoint called n holds
that state, and the next batch is the first of `make_batches(n)`. A run is a function of its configuration and its data:
one which is killed and started again goes through the same states, bit for bit, as one which is not.

The host runs one step ahead of the devices, and the data one batch ahead of the host. Metrics stay on the device until
the next multiple of `log_every`, but are always looked at before a save or an evaluation: nothing that is not finite is
ever saved.
"""

import contextlib
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
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.feed import Feed
from diffjax.training.sharding import Layout, check_batch_size, parallelize
from diffjax.training.state import Trainable, TrainState, init_state, optimizer
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

    config        the section `training` of a configuration, see `TrainingConfig`
    make_batches  `make_batches(n)` iterates over the batches of the steps n + 1, n + 2, ...: dicts of numpy arrays,
                  this process's part of the global batch; it must not write again to arrays it has handed out
    directory     of the checkpoints, nothing else is written
    meta          JSON saved with each checkpoint, beside `step` and `examples_seen`; the configuration, say
    on_start      called once, before the first step, with the number of the step that the run goes on from; at first 0
    on_log        called every `log_every` steps, see `_Metrics.take`
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
    layout = parallelize(make_step(model, optimizer(config), config), config.parallel, devices, config.mesh)
    # By name: under "rbg" keys vmap does not draw per example, and the result would depend on the layout.
    init_key, run_key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    with Checkpointer(directory, config.keep_every) as checkpointer, contextlib.ExitStack() as until_done:
        state, examples_seen = _begin(checkpointer, layout, model, config, init_key)
        start = int(state.step)
        if on_start is not None:
            on_start(start)
        state = layout.place_state(state)
        feed = until_done.enter_context(closing(Feed(islice(make_batches(start), config.steps - start), config)))
        metrics = _Metrics(config, checkpointer, feed, began)
        bar = until_done.enter_context(_bar(config.steps, start))
        for step in range(start + 1, config.steps + 1):
            last = step == config.steps
            state, step_metrics = layout.run(state, run_key, layout.place_batch(feed.get(step, step == start + 1)))
            metrics.add(step, step_metrics)
            examples_seen += config.batch_size
            bar.update()
            if _due(step, config.log_every) or last:
                logged = metrics.take()
                bar.set_postfix({name: f"{logged[name]:.4g}" for name in ("loss", "images_per_second")})
                if on_log is not None:
                    on_log(step, logged)
            stopped = stop is not None and stop(step) and not last
            if _due(step, config.save_every) or last or stopped:
                metrics.check()
                about = {**(meta or {}), "step": step, "examples_seen": examples_seen}
                _save(checkpointer, step, layout.fetch_state(state), about)
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


def abstract_state(layout: Layout, model: Trainable, config: TrainingConfig) -> TrainState:
    """The shapes of a run's state, each with its place in the layout: what to restore a checkpoint into."""
    shapes = jax.eval_shape(lambda key: init_state(key, model, optimizer(config)), jax.random.key(0))

    def place(x: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(place, shapes, layout.shardings(shapes))


def _begin(
    checkpointer: Checkpointer, layout: Layout, model: Trainable, config: TrainingConfig, key: Array
) -> tuple[TrainState, int]:
    """The newest state there is, or the first one; and the number of examples that it has seen."""
    wanted = abstract_state(layout, model, config)
    if checkpointer.latest_step() is None:
        shardings = jax.tree.map(lambda x: x.sharding, wanted)
        begin = jax.jit(lambda key: init_state(key, model, optimizer(config)), out_shardings=shardings)
        return begin(key), 0
    state, meta = checkpointer.restore(wanted)
    if int(state.step) > config.steps:
        raise InputError(
            f"training.steps = {config.steps} lies before the checkpoint of step {int(state.step)} in "
            f"{checkpointer.directory}; raise it, or use another workdir"
        )
    return state, meta["examples_seen"]


def _save(checkpointer: Checkpointer, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    """Saves a state that is finite, and no other."""
    if not _all_finite((state.params, state.ema, state.opt_state)):
        raise TrainingDiverged(step, "the parameters or the optimiser's moments are not finite", checkpointer)
    checkpointer.save(step, state, meta)


def _bar(steps: int, start: int) -> Any:
    """The progress on the screen of the first process. Not on a terminal, a line now and then is enough."""
    return tqdm(
        total=steps,
        initial=start,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        disable=jax.process_index() != 0,
    )


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
        """What there is to log of the steps since the last call.

        `loss` and `grad_norm`, means; `learning_rate`, the newest; `images_per_second`, without evaluations and the
        compiling first step; `input_wait`, the part of that time spent waiting for data; `skipped`, the number of bad
        steps. The first time also `first_step_seconds`, from the start of `train` to the end of the first step.
        """
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
