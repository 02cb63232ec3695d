"""The training loop: restore if there is something to restore, step, log, save, evaluate.

Steps are counted by finished updates: after step n (n = 1, 2, ...) `state.step == n`, the checkpoint called n holds
that state, and the next batch is the first of `make_batches(n)`. A run is a function of its configuration and its data:
one which is killed and started again goes through the same states, bit for bit, as one which is not.

The host runs one step ahead of the devices. Metrics stay on the device until the next multiple of `log_every`, but are
always looked at before a save or an evaluation: nothing that is not finite is ever saved.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool
from tqdm import tqdm

from diffjax.errors import InputError
from diffjax.time_sampling import TimeSampler
from diffjax.training.checkpoint import Checkpointer, abstract
from diffjax.training.config import TrainingConfig, training_config
from diffjax.training.sharding import check_batch_size, parallelize
from diffjax.training.state import TrainState, init_state, optimizer
from diffjax.training.step import make_step


class TrainingDiverged(InputError):
    """The loss, the gradient or the parameters stopped being finite at `step`; earlier checkpoints are untouched."""

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
            "lower training.learning_rate, or set training.grad_clip, to get past it"
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
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_eval: Callable[[int, TrainState], None] | None = None,
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
    on_log        called every `log_every` steps with the mean `loss` and `grad_norm` since the last call,
                  the `learning_rate`, and `images_per_second` (evaluations and the compiling first step not counted)
    on_eval       called every `eval_every` steps and at the end, with the replicated state; it must not keep the state,
                  whose memory the next step reuses
    devices       all of them unless given

    Returns the last state. Raises `TrainingDiverged`, and `InputError` for a bad configuration or batch.
    """
    config = training_config(config._asdict() if isinstance(config, TrainingConfig) else config)
    check_batch_size(config.batch_size, len(devices or jax.devices()))
    tx = optimizer(config)
    layout = parallelize(make_step(model, tx, config, time_sampler=time_sampler), config.parallel, devices)
    # By name: under "rbg" keys vmap does not draw per example, and the result would depend on the layout.
    init_key, run_key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    initialize = jax.jit(lambda key: init_state(key, model, tx, time_sampler))

    with Checkpointer(directory, config.keep_every) as checkpointer:
        examples_seen = 0
        if checkpointer.latest_step() is None:
            state = initialize(init_key)
        else:
            wanted = abstract(jax.eval_shape(initialize, init_key), layout.replicated)
            state, saved_meta = checkpointer.restore(wanted)
            examples_seen = saved_meta["examples_seen"]
        start = int(state.step)
        if start > config.steps:
            raise InputError(
                f"training.steps = {config.steps} lies before the checkpoint of step {start} in "
                f"{checkpointer.directory}; raise it, or use another workdir"
            )
        state = layout.place_state(state)
        batches = make_batches(start)
        metrics = _Metrics(config.batch_size, checkpointer)
        # Not on a terminal, a line now and then is enough.
        bar = tqdm(
            total=config.steps,
            initial=start,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=jax.process_index() != 0,
        )
        with bar:
            for step in range(start + 1, config.steps + 1):
                batch = next(batches, None)
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
                if _due(step, config.save_every) or last:
                    metrics.check()
                    fetched = layout.fetch_state(state)
                    if not _all_finite((fetched.params, fetched.ema, fetched.opt_state)):
                        what = "the parameters or the optimiser's moments are not finite"
                        raise TrainingDiverged(step, what, checkpointer)
                    checkpointer.save(step, fetched, {**(meta or {}), "step": step, "examples_seen": examples_seen})
                if on_eval is not None and _due(step, config.eval_every) and not last:
                    metrics.check()
                    on_eval(step, layout.fetch_state(state))
                    metrics.restart_clock()
        state = layout.fetch_state(state)
        if on_eval is not None:
            on_eval(config.steps, state)
    return state


class _Metrics:
    """Metrics since the last log: on the device until `check` or `take`, which stop at what is not finite."""

    def __init__(self, batch_size: int, checkpointer: Checkpointer):
        self._batch_size = batch_size
        self._checkpointer = checkpointer
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
        self._seconds.append(time.perf_counter() - self._clock)
        self.restart_clock()

    def check(self) -> None:
        """Fetches what is pending; raises `TrainingDiverged` at the first loss or gradient which is not finite."""
        fetched = jax.device_get([metrics for _, metrics in self._pending])
        for (step, _), metrics in zip(self._pending, fetched, strict=True):
            for name in ("loss", "grad_norm"):
                if not np.isfinite(metrics[name]):
                    raise TrainingDiverged(step, f"its {name} is {metrics[name]}", self._checkpointer)
            self._window.append(metrics)
        self._pending = []

    def take(self) -> dict[str, float]:
        """The means since the last call, the newest learning rate and the speed."""
        self.check()
        seconds = self._seconds[1:] if self._compiling and len(self._seconds) > 1 else self._seconds
        taken = {name: float(np.mean([m[name] for m in self._window])) for name in ("loss", "grad_norm")}
        taken["learning_rate"] = float(self._window[-1]["learning_rate"])
        taken["images_per_second"] = self._batch_size * len(seconds) / sum(seconds)
        self._window, self._seconds, self._compiling = [], [], False
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
