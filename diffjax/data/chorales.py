"""Bach's chorales in four voices, from the corpus that comes with the package music21: windows of quarter notes.

An entry is the pitch that sounds at the beginning of a quarter, in semitones above MIDI 35, or 0 for a rest. A window
(length, 4, 1) has a row for each quarter and a column for each voice: soprano, alto, tenor, bass. No chorale has
windows in both parts of the set.
"""

import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diffjax.data.cache import Arrays, cached
from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.pipeline import permutation
from diffjax.errors import InputError
from diffjax.extras import needs

LOWEST = 35  # MIDI pitch below all that are sung
LEVELS = 48  # a rest, and the pitches 36 .. 82
STRIDE = 4  # quarters between the beginnings of training windows; test windows do not overlap
HELD_OUT = 0.1  # of the chorales


def chorales(config: Any, split: str) -> Dataset:
    """Windows of `config.shape` = (length, 4, 1).

    Raises:
        InputError: if the shape is another, or music21 is not installed.
    """
    shape = tuple(config.shape)
    if len(shape) != 3 or shape[1:] != (4, 1) or shape[0] > 64:
        raise InputError(f"data.shape={shape} disagrees with 'chorales': set data.shape=(16, 4, 1), up to 64 quarters.")
    rows, owner = _all()
    names = np.unique(owner)
    order = names[permutation(0, 0, len(names))]
    held = round(HELD_OUT * len(names))
    found = []
    for one in order[:held] if split == "test" else order[held:]:
        voices = rows[owner == one]
        stride = shape[0] if split == "test" else STRIDE
        found += [voices[i : i + shape[0]] for i in range(0, len(voices) - shape[0] + 1, stride)]
    return from_arrays("chorales", np.stack(found)[..., None], levels=LEVELS)


def _all() -> Arrays:
    """All chorales below one another, (quarters, 4), and the number of the chorale of each row."""
    with needs("chorales"):
        facts = {"set": "chorales", "music21": version("music21"), "made_by": [LOWEST, LEVELS, 1]}

    def make() -> Arrays:
        from music21 import corpus

        rows, owner = [], []
        for path in sorted(corpus.getComposer("bach")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                voices = _voices(corpus.parse(path))
            if voices is not None:
                owner.append(np.full(len(voices), len(rows), np.int32))
                rows.append(voices)
        return np.concatenate(rows), np.concatenate(owner)

    return cached("chorales", facts, make)


def _voices(score: Any) -> UInt8[np.ndarray, "quarters 4"] | None:
    """The pitches at each quarter; None if the piece has not four voices of one length within the range."""
    if len(score.parts) != 4:
        return None
    flat = [part.flatten() for part in score.parts]
    length = int(min(part.highestTime for part in flat))
    found = np.zeros((length, 4), np.uint8)
    for voice, part in enumerate(flat):
        for note in part.notes:
            if note.isChord:
                return None
            pitch = note.pitch.midi - LOWEST
            if not 0 < pitch < LEVELS:
                return None
            first, last = float(note.offset), float(note.offset + note.quarterLength)
            found[int(np.ceil(first - 1e-6)) : int(np.ceil(last - 1e-6)), voice] = pitch
    return found if length and found.any(0).all() else None
