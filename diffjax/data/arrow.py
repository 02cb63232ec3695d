"""Reads sets saved by `Dataset.save_to_disk` of Hugging Face's `datasets`, without that package.

    DIR/state.json         {"_data_files": [{"filename": "data-00000-of-00001.arrow"}, ...], ...}
    DIR/dataset_info.json  {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [...]}}}
    DIR/data-*.arrow       Arrow IPC streams; an image is {"bytes": its file, "path": its name}
    DIR/dataset_dict.json  if there are several splits: {"splits": ["train", "test"]}, each in its own directory

The files are memory-mapped, so an image is read on demand.
"""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from diffjax.data.dataset import Dataset, as_labels
from diffjax.data.pictures import Files, Part, of_files
from diffjax.data.tables import EXAMPLES, LABELS, name_of, of_arrays
from diffjax.errors import InputError
from diffjax.extras import needs_run

if TYPE_CHECKING:
    import pyarrow as pa


def read(config: Any, directory: Path, training: Path, part: Part) -> Dataset:
    """The examples of a saved set, and its labels if there are any.

    The examples are the first column of images. Without one, they are the only column of numbers. The labels are the
    first column of type ClassLabel. Without one, they are a column of whole numbers called `label` or similar.

    Raises `InputError` if the directory is not a saved set, or has no such column.
    """
    features = _features(directory)
    table, facts = _table(directory)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    label = classes[0] if classes else name_of(LABELS, table.column_names)
    labels = None if label is None else _labels(config.name, table, label)
    images = [name for name, kind in kinds.items() if kind == "Image"]
    title = f"{config.name} {str(directory)!r}"
    if images:
        names = tuple(map(str, features[label].get("names", ()))) if label in classes else ()
        if labels is None:
            labels = np.zeros(table.num_rows, np.int32)
        elif not names:
            names = tuple(map(str, range(int(labels.max(initial=0)) + 1)))
        column = table.column(images[0])

        def opened(i: int) -> Path | BinaryIO:
            value = column[int(i)].as_py() or {}
            return io.BytesIO(value["bytes"]) if value.get("bytes") else Path(value.get("path") or "no image")

        return of_files(config, Files(title, opened, lambda i: f"row {i}", labels, names, [facts, images[0]]), part)
    others = [name for name in table.column_names if name != label]
    name = name_of(EXAMPLES, others, others)
    if name is None:
        raise InputError(f"{title} has the columns {', '.join(others)}: call that of the examples 'image'.")
    return of_arrays(config, str(directory), _numbers(table, name, str(directory)), labels, part)


def _features(directory: Path) -> dict[str, Any]:
    """What the columns hold, by name."""
    if (directory / "dataset_dict.json").is_file():
        splits = _json(directory / "dataset_dict.json").get("splits", [])
        raise InputError(
            f"data.dir={str(directory)!r} has the splits {', '.join(splits)}: set data.train_split and data.test_split"
            " to two of them, or data.dir to the directory of one."
        )
    if not (directory / "state.json").is_file() or not (directory / "dataset_info.json").is_file():
        raise InputError(
            f"data.dir={str(directory)!r} is no directory that save_to_disk of `datasets` wrote: name one."
        )
    return _json(directory / "dataset_info.json").get("features") or {}


def _table(directory: Path) -> tuple["pa.Table", list]:
    """The rows, and the names, sizes and times of the files they come from."""
    with needs_run():
        import pyarrow as pa

    files = [directory / str(entry["filename"]) for entry in _json(directory / "state.json").get("_data_files", [])]
    try:
        table = pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files])
        return table, [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{directory} cannot be read ({reason}): save it with save_to_disk again.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): save the set with save_to_disk again.") from error
    return found


def _labels(name: str, table: "pa.Table", column: str) -> np.ndarray:
    """The labels in a column, -1 for an empty cell."""
    values = [-1 if value is None else value for value in table.column(column).to_pylist()]
    return as_labels(name, np.array(values))


def _numbers(table: "pa.Table", column: str, called: str) -> np.ndarray:
    try:
        return np.array(table.column(column).to_pylist())
    except ValueError as error:  # rows of several lengths
        raise InputError(f"{called} has rows of several lengths in its column {column!r}: make them equal.") from error
