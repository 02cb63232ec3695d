"""Fetches batches in a thread, with a time limit.

While the devices compute a step, the thread fetches the next batch. The time that the loop still has to wait is
counted, so a run can report that its input is the bottleneck. Nothing can interrupt a worker that hangs; the time limit
detects it.
"""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffjax.errors import InputError

Batch = dict[str, np.ndarray]


class DataTimeout(InputError):
    """No batch came in time. Threads of the data source may still hang, also at the interpreter's exit."""


class Feed:
    """Gives the batches in order, with one batch fetched ahead. `waited` is the total of seconds spent waiting."""

    def __init__(self, batches: Iterator[Batch], timeout: float):
        self.waited = 0.0
        self._timeout = timeout
        self._wanted = threading.Semaphore(1)
        self._fetched: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        threading.Thread(target=self._fetch, args=(batches,), daemon=True).start()

    def get(self, step: int) -> Batch | None:
        """The batch of `step`, None after the last. Raises what the data raised, or `DataTimeout`."""
        began = time.perf_counter()
        try:
            batch = self._fetched.get(timeout=min(self._timeout, threading.TIMEOUT_MAX))
        except queue.Empty:
            raise DataTimeout(
                f"no batch for step {step} came within training.data_timeout = {self._timeout:g} seconds: a data "
                "worker hangs, or is slow; look at the data source, or raise training.data_timeout"
            ) from None
        self.waited += time.perf_counter() - began
        if isinstance(batch, BaseException):
            raise batch
        self._wanted.release()
        return batch

    def close(self) -> None:
        """Ends the thread after its current fetch."""
        self._closed = True
        self._wanted.release()

    def _fetch(self, batches: Iterator[Batch]) -> None:
        while True:
            self._wanted.acquire()
            if self._closed:
                return
            try:
                self._fetched.put(next(batches, None))
            except BaseException as error:  # `get` raises it, in the thread that waits for the batch
                self._fetched.put(error)
                return
