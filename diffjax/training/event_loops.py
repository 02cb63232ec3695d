"""Event loops that end quietly.

Orbax reads and writes arrays in event loops of its own, and closes a loop at the first error. The reads and writes
still under way then report to a closed loop, each with a traceback on stderr: dozens for one damaged file. A patient
loop waits for them, for a minute at most, before it closes; one whose tasks are done closes as any other.
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
                    task.exception()  # or it is logged as never looked at
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


@contextlib.contextmanager
def patient_loops() -> Iterator[None]:
    """While it lasts, new event loops are patient ones."""
    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_PatientLoops())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
