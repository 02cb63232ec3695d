"""SIGTERM and Ctrl-C during training: the run finishes the current step, saves it, and ends."""

import signal
import threading
import types
from typing import Self

import jax
from jax.experimental import multihost_utils


class Stop:
    """A context in which `stop(step)` says whether a signal has come. A second signal ends the process as usual.

    With several processes, SIGTERM reaches each at a different step. Then jax's coordinator handles the signal, and
    agrees on one step for all. Python handles signals in the main thread only, so in other threads no signal is seen.
    """

    def __enter__(self) -> Self:
        self._asked = False
        ours = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
        self._signals = [signal.SIGTERM, signal.SIGINT] if ours else []
        self._before = [signal.signal(number, self._ask) for number in self._signals]
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in zip(self._signals, self._before, strict=True):
            signal.signal(number, before)

    def __call__(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        self._asked = True
        self.__exit__()
