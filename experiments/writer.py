"""Writes the files of a run and prints to the screen. Only the first process does so; the others are silent."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax.extras import needs_run
from diffjax.zoo.figures import Figure
from experiments import page, pictures
from experiments.wandb_log import WandbLog
from experiments.workdir import Log, claim, write_json

with needs_run():
    from tqdm import tqdm


class Writer:
    """The writer of the first process. Logs are open from `begin` to `close`."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._logs: list[Log | WandbLog] = []

    def say(self, *lines: str) -> None:
        for line in lines:
            tqdm.write(line)  # above the progress bar, if there is one

    def begin(self, step: int, saved: Mapping[str, Any], wandb: bool = False) -> None:
        """Opens the logs of a training that continues from `step`. `saved` is its configuration."""
        self._logs.append(Log(self._directory, step))
        if wandb:
            self._logs.append(WandbLog(self._directory, saved))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for log in self._logs:
            log.scalars(step, dict(values))

    def samples(self, step: int, figure: Figure) -> Path:
        """Writes samples drawn during training to samples/ and the logs."""
        path = self.figure(f"step_{step:08d}", figure)
        for log in self._logs:
            log.image(step, "samples", path)
        return path

    def figure(self, name: str, figure: Figure) -> Path:
        return pictures.write(self._directory / "samples" / name, figure)

    def figures(self, step: int, drawn: Callable[[], Mapping[str, Figure]]) -> None:
        """Writes figures to samples/ and the logs. `drawn` computes them; silent processes do not call it."""
        for name, figure in drawn().items():
            path = self.figure(name, figure)
            for log in self._logs:
                log.image(step, name, path)

    def arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        np.savez_compressed(self._directory / "samples" / f"{name}.npz", **arrays)  # type: ignore[arg-type]

    def report(self, report: Mapping[str, Any], name: str = "eval.json") -> None:
        write_json(self._directory / name, report)

    def page(self, told: Sequence[str]) -> None:
        """Writes the page of the run from its files. `told` are the lines that the screen shows about its numbers."""
        page.write(self._directory, told)

    def close(self) -> None:
        for log in self._logs:
            log.close()


class Silent(Writer):
    """The writer of all other processes."""

    def say(self, *lines: str) -> None: ...
    def begin(self, step: int, saved: Mapping[str, Any], wandb: bool = False) -> None: ...
    def samples(self, step: int, figure: Figure) -> Path:
        return self._directory

    def figures(self, step: int, drawn: Callable[[], Mapping[str, Figure]]) -> None: ...
    def arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None: ...
    def report(self, report: Mapping[str, Any], name: str = "") -> None: ...
    def page(self, told: Sequence[str]) -> None: ...

    def figure(self, name: str, figure: Figure) -> Path:
        return self._directory


def writer_of(directory: Path) -> Writer:
    """The writer of this process."""
    return Writer(directory) if jax.process_index() == 0 else Silent(directory)


@contextlib.contextmanager
def claimed(directory: Path, saved: dict[str, Any], train_size: int | None = None) -> Iterator[Writer]:
    """The writer of a training. While it is open, no other training can use the directory, see `workdir.claim`."""
    writer = writer_of(directory)
    writes = not isinstance(writer, Silent)
    with claim(directory, saved, writes, train_size), contextlib.closing(writer):
        yield writer
