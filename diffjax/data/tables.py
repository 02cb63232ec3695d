"""The user's own arrays and tables in files: .npz, .npy, and numbers as text.

npz   The examples are the array `images`, `image`, `examples`, `x` or `data`, or the only array that is not labels.
      The labels are the array `labels`, `label`, `y`, `targets` or `classes`, if there is one.
npy   The examples, without labels.
csv   One example in each row, its elements in the order of data.shape. If the first row is text, it names the columns.
      A column `label`, `labels`, `class` or `target` has the labels. Columns are separated by a comma, a semicolon, a
      tab or spaces.

Nothing is scaled. If data.levels is 0, models start from noise of standard deviation 1, so the elements should have
standard deviations near 1. If they do not, the set's note says so.
"""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.pictures import Part
from diffjax.errors import InputError

EXAMPLES = ("images", "image", "examples", "x", "X", "data")
LABELS = ("labels", "label", "y", "Y", "targets", "target", "classes", "class")
LABEL_COLUMNS = ("label", "labels", "class", "target")
SUFFIXES_OF_TEXT = (".csv", ".tsv", ".txt")
FAR, NARROW, WIDE = 3.0, 0.1, 10.0  # limits for the mean (FAR) and the standard deviation of standardised elements


def read_npz(config: Any, path: Path, training: Path, part: Part) -> Dataset:
    """The examples of an .npz file, and its labels if there are any.

    Raises `InputError` if the file cannot be read, if it is not clear which array has the examples, or if the examples
    do not fit config.shape and config.levels.
    """
    file = _file(path, (".npz",))
    arrays = _loaded(file)
    if not isinstance(arrays, Mapping):
        raise InputError(f"{file} holds one array: set data.name='npy'.")
    name = name_of(EXAMPLES, list(arrays), [n for n in arrays if n not in LABELS])
    if name is None:
        raise InputError(f"{file} has the arrays {', '.join(arrays) or 'none'}: call that of the examples 'images'.")
    labels = name_of(LABELS, [n for n in arrays if n != name])
    return of_arrays(config, str(file), arrays[name], None if labels is None else arrays[labels], part)


def read_npy(config: Any, path: Path, training: Path, part: Part) -> Dataset:
    """The examples of an .npy file. Raises `InputError` as `read_npz` does."""
    file = _file(path, (".npy",))
    array = _loaded(file)
    if isinstance(array, Mapping):
        raise InputError(f"{file} holds several arrays: set data.name='npz'.")
    return of_arrays(config, str(file), array, None, part)


def read_csv(config: Any, path: Path, training: Path, part: Part) -> Dataset:
    """The rows of a table of numbers. Raises `InputError` as `read_npz` does, naming the row and the column."""
    file = _file(path, SUFFIXES_OF_TEXT)
    try:
        header, rows = _table(file)
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text in UTF-8 ({error.reason}): save it as CSV again.") from error
    labels = None
    if (column := name_of(LABEL_COLUMNS, header)) is not None:
        labels, rows = rows[:, header.index(column)], np.delete(rows, header.index(column), axis=1)
    if rows.shape[1] != (wanted := int(np.prod(config.shape))):
        raise InputError(
            f"{file} has {rows.shape[1]} columns{'' if labels is None else ' beside the labels'}, but"
            f" data.shape={tuple(config.shape)} asks for {wanted}: set data.shape=({rows.shape[1]},)."
        )
    return of_arrays(config, str(file), rows.reshape(-1, *config.shape), labels, part)


def of_arrays(config: Any, called: str, examples: np.ndarray, labels: np.ndarray | None, part: Part) -> Dataset:
    """Arrays of a file as a Dataset of config.shape and config.levels. `called` is their name in error messages.

    Raises `InputError` if they do not fit.
    """
    levels = config.get("levels", 256)
    examples = _valued(_shaped(examples, tuple(config.shape), called), levels, called)
    note = f"{config.name} {called!r}: {len(examples)} examples{_spread(examples) if not levels else ''}"
    whole = from_arrays(config.name, examples, labels, levels, note)  # checked before it is divided
    taken = whole.gather(np.arange(len(whole))[part(len(whole))])
    return from_arrays(config.name, taken["image"], taken["label"], levels, note)


def name_of(wanted: Sequence[str], names: Sequence[str], otherwise: Sequence[str] = ()) -> str | None:
    """The first wanted name that is in `names`; else the only name in `otherwise`; None if it has not exactly one."""
    there = [name for name in wanted if name in names]
    return there[0] if there else otherwise[0] if len(otherwise) == 1 else None


def _file(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The file itself, or the only one of its kind in a directory."""
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise InputError(f"data.dir={str(path)!r} must end in {' or '.join(suffixes)}, as its data.name says.")
        return path
    if not path.is_dir():
        raise InputError(f"data.dir={str(path)!r} is not there: name a file that ends in {' or '.join(suffixes)}.")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
    if len(files) != 1:
        names = ", ".join(file.name for file in files[:5]) or "none"
        raise InputError(
            f"data.dir={str(path)!r} has {len(files)} files that end in {' or '.join(suffixes)} ({names}): name one of"
            " them, or two by data.train_split and data.test_split."
        )
    return files[0]


def _loaded(file: Path) -> Any:
    """The content of a numpy file: one array, or arrays by name."""
    try:
        # Opened here: if numpy opens a damaged file itself, it does not close it.
        with file.open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        if "allow_pickle" in reason or "pickled" in reason:
            reason = "it is none of numpy's files, or holds Python objects, which are not executed"
        raise InputError(
            f"{file} cannot be read ({reason}): save arrays of numbers with np.savez or np.save."
        ) from error


def _table(file: Path) -> tuple[list[str], np.ndarray]:
    """The column names ([] if there are none) and the rows."""
    with file.open(newline="", encoding="utf-8-sig") as opened:
        lines = [line for line in opened if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"{file} is empty: give a row of numbers for each example.")
    delimiter = next((mark for mark in ",;\t" if mark in lines[0]), " ")
    cells = list(csv.reader((line.strip() for line in lines), delimiter=delimiter, skipinitialspace=True))
    header = [] if any(map(_is_number, cells[0])) else [name.strip() for name in cells[0]]
    rows = cells[1:] if header else cells
    if not rows:
        raise InputError(f"{file} has names of columns only: give a row of numbers for each example.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(cells[0]):
            raise InputError(
                f"{file} has {len(row)} cells in row {number} of numbers, but {len(cells[0])} before it: mend it."
            )
    try:
        return header, np.array(rows, np.float64)
    except ValueError:
        pass  # the error below names the cell
    for number, row in enumerate(rows, start=1):
        for cell, value in enumerate(row):
            if not _is_number(value):
                column = f"column {cell + 1}" + (f" ({header[cell]})" if header else "")
                raise InputError(
                    f"{file} has {value!r} in row {number} of numbers, {column}: give numbers only, and leave out rows"
                    " that lack one."
                )
    raise InputError(f"{file} cannot be read as numbers: write them as 1.5 or 2e-3.")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shaped(examples: np.ndarray, shape: tuple[int, ...], called: str) -> np.ndarray:
    """The examples, with a channel axis of size 1 added if only that is missing."""
    if examples.ndim and (*examples.shape[1:], 1) == shape:
        examples = examples[..., None]
    theirs = examples.shape[1:]
    if not examples.ndim or theirs == ():
        raise InputError(f"{called} has examples of shape {examples.shape}: give an array (n, ...), one row for each.")
    if theirs != shape:
        first = len(theirs) == 3 and theirs[0] in (1, 3) and theirs[2] not in (1, 3)
        if first:
            raise InputError(
                f"{called} has examples of shape {theirs}, channels first: save them as x.transpose(0, 2, 3, 1), and"
                f" set data.shape={(*theirs[1:], theirs[0])}."
            )
        fix = (*theirs, 1) if len(theirs) == 2 and len(shape) == 3 else theirs
        raise InputError(f"data.shape={shape}, but {called} has examples of shape {theirs}: set data.shape={fix}.")
    return examples


def _valued(examples: np.ndarray, levels: int, called: str) -> np.ndarray:
    """The same values as integers if there are levels, otherwise as floats."""
    kind = examples.dtype.kind
    if kind not in "biuf":
        raise InputError(f"{called} has examples of type {examples.dtype}: save them as numbers, such as float32.")
    if kind == "f" and levels and examples.size:
        low, high = np.min(examples), np.max(examples)  # NaN if one is
        if not (np.isfinite([low, high]).all() and low >= 0 and high < 256 and (examples == np.rint(examples)).all()):
            raise InputError(
                f"{called} has numbers from {low:.6g} to {high:.6g}, but data.levels={levels} asks for whole ones, 0 .."
                f" {levels - 1}: save images as (255 * x).round().astype(np.uint8), or set data.levels=0 for real"
                " numbers."
            )
        return examples.astype(np.uint8)
    return examples.astype(np.float32) if not levels and kind != "f" else examples


def _spread(examples: np.ndarray) -> str:
    """A warning for the note if the real numbers are not about standardised; otherwise ""."""
    with np.errstate(all="ignore"):  # `from_arrays` reports values that are not finite
        means, deviations = examples.mean(axis=0, dtype=np.float64), examples.std(axis=0, dtype=np.float64)
    if not np.isfinite(means).all() or not np.isfinite(deviations).all():
        return ""
    if abs(means).max() <= FAR and deviations.min() >= NARROW and deviations.max() <= WIDE:
        return ""
    return (
        f"; its elements have means from {means.min():.3g} to {means.max():.3g} and deviations from"
        f" {deviations.min():.3g} to {deviations.max():.3g}: models of real numbers expect some 0 and 1, so standardise"
        " them beforehand"
    )
