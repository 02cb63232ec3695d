"""The progress line of a training: how far it is, and how much time is left.

The time left is estimated from this run: the mean time of a step for each remaining step, and the mean time of an
evaluation for each remaining evaluation, the last one included. The first step compiles and does not count. Nor does
the first evaluation, if there are others. Before the first evaluation, the line says that it counts only steps. It does
not include what the caller measures after training.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from diffjax.extras import needs_run
from diffjax.training.config import TrainingConfig

with needs_run():
    from tqdm import tqdm

LINE = "training {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {left}{postfix}]"


class TimeLeft:
    """The time left of a training that began at the step `start`. `clock` gives seconds.

    evaluates: whether there are evaluations, at multiples of `config.eval_every` and at the end
    """

    def __init__(
        self, config: TrainingConfig, start: int, evaluates: bool, clock: Callable[[], float] = time.perf_counter
    ):
        self._config, self._evaluates, self._clock = config, evaluates, clock
        self._first = start + 1
        self._compiled: float | None = None
        self._evaluations: list[float] = []
        self._since: float | None = None  # start of the evaluation that is running now

    def stepped(self, step: int) -> None:
        if step == self._first:
            self._compiled = self._clock()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        self._since = began = self._clock()
        yield
        self._since = None
        self._evaluations.append(self._clock() - began)

    def seconds(self, step: int) -> float | None:
        """Seconds left after this step; None if no step was measured yet."""
        if self._compiled is None or step <= self._first:
            return None
        now = self._clock() if self._since is None else self._since
        spent = now - self._compiled - sum(self._evaluations)
        later = self._evaluations[1:] or self._evaluations
        evaluation = sum(later) / len(later) if later else 0.0
        return (self._config.steps - step) * spent / (step - self._first) + self._to_come(step) * evaluation

    def told(self, step: int) -> str:
        seconds = self.seconds(step)
        if seconds is None:
            return "left ?"
        alone = "" if self._evaluations or not self._to_come(step) else " without evaluations"
        return f"left {tqdm.format_interval(seconds)}{alone}"

    def _to_come(self, step: int) -> int:
        """The number of evaluations after this step, with the final one."""
        if not self._evaluates:
            return 0
        every, last = self._config.eval_every, self._config.steps
        return (max((last - 1) // every - step // every, 0) if every else 0) + 1


class Bar(tqdm):
    """The progress bar on stderr. With several processes only the first prints anything."""

    def __init__(self, config: TrainingConfig, start: int, evaluates: bool):
        self.time_left = TimeLeft(config, start, evaluates)
        # A terminal and a notebook rewrite the line. Elsewhere each update is a new line, so they come less often.
        interval = 0.5 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30.0
        silent = jax.process_index() != 0
        super().__init__(total=config.steps, initial=start, mininterval=interval, bar_format=LINE, disable=silent)

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values that `LINE` can use."""
        return super().format_dict | {"left": self.time_left.told(self.n)}

    def stepped(self, step: int) -> None:
        self.time_left.stepped(step)
        self.update()

    def say(self, text: str) -> None:
        if not self.disable:
            self.write(text, file=sys.stderr)

    def shown(self, logged: dict[str, float]) -> dict[str, float]:
        self.set_postfix({name: f"{logged[name]:.4g}" for name in ("loss", "images_per_second")})
        return logged
