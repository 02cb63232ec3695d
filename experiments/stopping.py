"""SIGTERM and Ctrl-C during training: the step under way is finished and saved, then the run leaves."""

import signal
import threading
import types
from typing import Self

import jax
from jax.experimental import multihost_utils


class Stop:
    """As a context: `stop(step)` says whether a signal has come. The second one ends the process as it always would.

    Several processes are told of SIGTERM at different steps, so jax's coordinator makes one step of it, and has the
    signal to itself. Python handles signals in the main thread only: in another thread none is seen.
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
