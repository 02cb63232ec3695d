"""Event loops that end quietly.

Orbax reads and writes arrays in its own event loops, and closes a loop at the first error. The reads and writes that
are still running then report to a closed loop, each with a traceback on stderr: dozens for one damaged file. A patient
loop first waits for them, for at most a minute. If its tasks are done, it closes like any other loop.
"""

import asyncio
import contextlib
from collections.abc import Iterator


class _PatientLoop(asyncio.SelectorEventLoop):
    def close(self) -> None:
        if pending := asyncio.all_tasks(self):
            self.run_until_complete(asyncio.wait(pending, timeout=60))
            for task in pending:
                if task.done() and not task.cancelled():
                    task.exception()  # otherwise asyncio logs that it was never retrieved
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


@contextlib.contextmanager
def patient_loops() -> Iterator[None]:
    """A context in which new event loops are patient."""
    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientLoops())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
