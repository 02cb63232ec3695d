"""A run's directory: config.json, checkpoints/, metrics.jsonl, samples/, eval.json, report.html, TensorBoard's events.

A directory belongs to one configuration. When a run continues, only the fields in `FREE` may change, such as the place
of the data, the number of steps, and how to evaluate and sample. Any other change is another run and needs another
directory. Only one training at a time writes to a directory.

All JSON is strict (RFC 8259), so numbers must be finite. In a report or a log, other numbers are null. In config.json
they are the strings "NaN", "Infinity" and "-Infinity", because there null is Python's None.
"""

import contextlib
import datetime
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ml_collections import ConfigDict

from diffjax.errors import InputError
from diffjax.extras import needs_run
from diffjax.training.config import TrainingConfig
from experiments.suggestions import nearest

with needs_run():
    from PIL import Image

try:
    import fcntl
except ImportError:  # on Windows, where nothing prevents a second training
    fcntl = None  # type: ignore[assignment]

# Fields and sections that may change when a run continues: they do not change what is trained.
FREE = (
    "data.dir", "evaluation", "guidance", "logging", "mesh", "parallel", "sampling", "training.steps",
    "training.log_every", "training.eval_every", "training.save_every", "training.keep_every", "training.accumulate",
    "training.on_bad_step", "training.grad_limit", "training.data_timeout",
)  # fmt: skip
# The values, in JSON, of fields that are newer than some runs: what those runs did before the field existed.
YOUNGER = {
    "data.num_test": 0,
    "data.num_train": 0,
    "data.split_seed": 0,
    "data.test_fraction": 0.1,
    "diffusion.label_dropout": 0.0,
    "diffusion.zero_terminal_snr": False,
    "guidance.limit": 0.0,
    "init_from": "",
    "logging.wandb": False,
    "net.name": "unet",  # for images; other networks have always had a name, or have none
    "sde.learned_uncertainty": False,
    "sde.sigma_data": 0.0,
    "sde.time_mean": -1.2,
    "sde.time_sampling": "uniform",
    "sde.time_scale": 1.29,
    "sde.time_std": 1.2,
    **{f"training.{k}": v for k, v in json.loads(json.dumps(TrainingConfig._field_defaults)).items()},
}
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as Python's json spells them


def default(config_path: str) -> Path:
    """runs/<config>-<date>."""
    return Path("runs") / f"{Path(config_path).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


@contextlib.contextmanager
def claim(workdir: Path, saved: dict[str, Any], writes: bool = True, train_size: int | None = None) -> Iterator[None]:
    """Makes the directory, locks it against other trainings while the context lasts, and writes config.json.

    If `writes` is False, it only checks. `train_size` is the number of training examples; it is kept in examples.json.

    Raises:
        InputError: if another training is running there, or if the directory holds a run of another configuration, or
            one with another number of training examples. The message names what differs. Nothing is changed then.
    """
    path = workdir / "config.json"
    if path.exists():
        there, now = ({**YOUNGER, **_flat(written)} for written in (_read(workdir), saved))
        differ = [
            f"{field} ({there.get(field, 'absent')!r} there, {now.get(field, 'absent')!r} now)"
            for field in sorted(there.keys() | now.keys())
            if there.get(field) != now.get(field) and not any(f"{field}.".startswith(f"{free}.") for free in FREE)
        ]
        if differ:
            raise InputError(
                f"workdir {workdir} was made with another config: {', '.join(differ)}; use another workdir"
            )
    _check_size(workdir, train_size)
    if not writes:
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            _lock(workdir, held.enter_context((workdir / "lock").open("a")))
            write_json(path, saved)
            if train_size is not None:
                write_json(workdir / "examples.json", {"train": train_size})
        except OSError as error:
            raise InputError(
                f"workdir {workdir} cannot be written ({error.strerror}); choose another workdir"
            ) from error
        yield


def _check_size(workdir: Path, train_size: int | None) -> None:
    """Raises `InputError` if a run there began with another number of examples: its batches would be others."""
    try:
        before = json.loads((workdir / "examples.json").read_text())["train"]
    except (OSError, ValueError, KeyError, TypeError):  # no run, or one from before this file was written
        return
    if train_size not in (None, before):
        raise InputError(
            f"the run in workdir {workdir} began with {before} training examples, and the data has {train_size} now: "
            "give it the data of before, or train in another workdir; init_from starts there from this run's weights"
        )


def read_config(workdir: Path, field: str = "workdir") -> ConfigDict:
    """The configuration of a run. `field` is the directory's name in error messages.

    Raises:
        InputError: if there is no run in this directory, or its config.json is damaged.
    """
    if not (workdir / "config.json").exists():
        runs = [str(path.parent) for path in workdir.parent.glob("*/config.json")]
        near = nearest(str(workdir), runs)
        meant = f"; did you mean {near[0]}?" if near else f"; train there first, or correct {field}"
        raise InputError(f"{field} {workdir} holds no run (no config.json){meant}")
    return from_plain(_read(workdir))


def from_plain(saved: dict[str, Any]) -> ConfigDict:
    """The inverse of `plain`."""
    return ConfigDict(_as_written(saved))


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration in the form of config.json: tuples are lists, and numbers that are not finite are strings.

    Raises:
        InputError: if it has a value that JSON cannot represent.
    """
    try:
        return json.loads(config.to_json(), parse_constant=str)
    except TypeError as error:
        raise InputError(
            f"the configuration cannot be saved as JSON ({error}); give it numbers, strings, booleans, None, tuples "
            "and sections only"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or nothing: a reader never sees half a file. Two processes may write at once."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(_dumps(value, indent=2) + "\n")
    part.replace(path)


def read_metrics(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """metrics.jsonl: name -> (steps, values), both (num,); nan for a value that was not finite.

    Raises:
        InputError: if there is no such file, because nothing was trained there.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"workdir {workdir} holds no training (no metrics.jsonl); train there first, or correct it")
    found: dict[str, dict[float, float]] = {}
    for text in path.read_text(errors="replace").splitlines():
        if not np.isfinite(_step(text)):
            continue
        line = json.loads(text)
        for name, value in line.items():
            if name != "step":
                found.setdefault(name, {})[line["step"]] = np.nan if value is None else value
    return {name: (np.array([*curve]), np.array([*curve.values()], float)) for name, curve in found.items()}


def worth_a_curve(metrics: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics whose values change."""
    return {name: curve for name, curve in metrics.items() if len(set(curve[1].tolist())) > 1}


class Log:
    """Writes metrics to metrics.jsonl and TensorBoard, and pictures to TensorBoard.

    A run that resumes at step `start` continues its own log. Lines up to that step stay. Later lines are from a run
    that was killed after its last checkpoint. They are dropped, because their steps will be repeated.
    """

    def __init__(self, workdir: Path, start: int):
        with needs_run():
            from tensorboardX import SummaryWriter  # takes a second, which a refused run need not wait

        path = workdir / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines if _step(line) <= start]
        part = path.with_name(path.name + ".part")
        part.write_text("".join(line + "\n" for line in kept))
        part.replace(path)
        self._there = [json.loads(line).keys() for line in kept if _step(line) == start]
        self._start = start
        self._lines = path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir), purge_step=start + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes a line, unless the log has one of this step and names: a finished run may evaluate again."""
        line = {"step": step, **values}
        if step == self._start and line.keys() in self._there:
            return
        self._lines.write(_dumps(line) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, name: str, path: Path) -> None:
        """path: a PNG or a GIF. Of a GIF the first frame is used."""
        with Image.open(path) as picture:
            self._events.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._lines.close()
        self._events.close()


def _lock(workdir: Path, file: TextIO) -> None:
    """Locks the file until it is closed. The end of the process also unlocks it, even after a crash."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks
        raise InputError(
            f"another training is at work in workdir {workdir}; wait for it, stop it, or use another workdir"
        ) from None


def _read(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    try:
        saved = json.loads(path.read_text(), parse_constant=str)
        if not isinstance(saved, dict):
            raise ValueError("not a JSON object")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); put back what it was: every checkpoint has a copy, "
            "meta.config in checkpoints/STEP/meta/metadata"
        ) from None
    return saved


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return np.inf  # an incomplete line, after the process was killed


def _dumps(value: Any, **options: Any) -> str:
    """Strict JSON: numbers that are not finite become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), allow_nan=False, **options)


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _as_written(value: Any) -> Any:
    """Undoes the changes of `plain`: strings for numbers become numbers, and lists become tuples."""
    if isinstance(value, dict):
        return {name: _as_written(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_as_written, value))
    return float(value) if value in NOT_FINITE else value
