"""A run's directory: config.json, checkpoints/, metrics.jsonl, samples/, eval.json and TensorBoard's events.

A directory belongs to one configuration. What may change between two visits is where the data lies and how far, how
often and with which sampler one looks; anything else is another run and wants another directory.
"""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from diffjax.errors import InputError

# Fields, or sections, that may differ from those the run began with: they do not change what is trained.
FREE = (
    "data.dir", "evaluation", "mesh", "parallel", "sampling", "training.steps", "training.log_every",
    "training.eval_every", "training.save_every", "training.keep_every", "training.accumulate", "training.on_bad_step",
    "training.grad_limit", "training.data_timeout",
)  # fmt: skip


def default(config_path: str) -> Path:
    """runs/<config>-<date>."""
    return Path("runs") / f"{Path(config_path).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def claim(workdir: Path, config: ConfigDict, writes: bool = True) -> None:
    """Makes the directory and writes config.json, or only looks whether it could.

    Raises:
        InputError: if the directory holds a run of another configuration, naming the fields; nothing is touched then.
    """
    path = workdir / "config.json"
    if path.exists():
        theirs, ours = _flat(json.loads(path.read_text())), _flat(_plain(config))
        differ = [
            f"{field} ({theirs.get(field, 'absent')!r} there, {ours.get(field, 'absent')!r} now)"
            for field in sorted(theirs.keys() | ours.keys())
            if theirs.get(field) != ours.get(field) and not any(f"{field}.".startswith(f"{free}.") for free in FREE)
        ]
        if differ:
            raise InputError(
                f"workdir {workdir} was made with another config: {', '.join(differ)}; use another workdir"
            )
    if not writes:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, _plain(config))
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written ({error.strerror}); choose another workdir") from error


def read_config(workdir: Path) -> ConfigDict:
    """The configuration a run was made with.

    Raises:
        InputError: if there is no run in this directory.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"workdir {workdir} holds no run (no config.json); train there first, or correct --workdir")
    return ConfigDict(_with_tuples(json.loads(path.read_text())))


def write_json(path: Path, value: Any) -> None:
    """Writes whole or not at all: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    part.replace(path)


class Log:
    """Metrics to metrics.jsonl and to TensorBoard, pictures to TensorBoard. A resumed run continues its own log."""

    def __init__(self, workdir: Path, start_step: int):
        from tensorboardX import SummaryWriter  # a second, which a refused run need not wait for

        path = workdir / "metrics.jsonl"
        if path.exists():
            # A killed run may have logged steps that its last checkpoint does not hold; they will come again.
            lines = path.read_text().splitlines()
            kept = [line for line in lines if _step(line) <= start_step]
            part = path.with_name(path.name + ".part")
            part.write_text("".join(line + "\n" for line in kept))
            part.replace(path)
        self._lines = path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir), purge_step=start_step + 1 if start_step else None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, name: str, path: Path) -> None:
        """path: of a PNG."""
        self._events.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._lines.close()
        self._events.close()


def _step(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return np.iinfo(np.int64).max  # the half line that a kill left behind


def _plain(config: ConfigDict) -> dict:
    return json.loads(config.to_json())


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
