"""Collects the metrics between two lines of the log, and stops a run that diverges."""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.config import TrainingConfig
from diffjax.training.feed import Feed

PATIENCE = 100  # bad steps in a row that are skipped before training stops


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


class Metrics:
    """The metrics since the last log. They stay on the device until `check` or `take`, which also find bad steps."""

    def __init__(
        self, config: TrainingConfig, checkpointer: Checkpointer, feed: Feed, say: Callable[[str], None], began: float
    ):
        self._began = began
        self._config = config
        self._checkpointer = checkpointer
        self._feed = feed
        self._say = say
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
            # Wait for the previous step: the devices stay busy, and at most two batches are in flight.
            jax.block_until_ready(self._pending[-2][1])
        elif self._compiling and not self._seconds:
            jax.block_until_ready(metrics)
            self._first_step_seconds = time.perf_counter() - self._began
        self._seconds.append(time.perf_counter() - self._clock)
        self._waits.append(self._feed.waited)
        self._feed.waited = 0.0
        self.restart_clock()

    def check(self) -> None:
        """Fetches the pending metrics. At a bad step, raises `TrainingDiverged`, or reports that it was skipped."""
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
            self._say(f"step {step} was skipped: {what}")
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
