"""Scores as arrays of pitches, with a score made by hand in place of music21's."""

from types import SimpleNamespace as Bag

import numpy as np
import pytest
from ml_collections import ConfigDict

from diffjax.data import chorales
from diffjax.data.embedded import EMBEDDED
from diffjax.errors import InputError


def part(*notes):
    """Notes (offset, length, MIDI pitch)."""
    made = [Bag(offset=o, quarterLength=n, pitch=Bag(midi=p), isChord=False) for o, n, p in notes]
    flat = Bag(notes=made, highestTime=max(o + n for o, n, _ in notes))
    return Bag(flatten=lambda: flat)


def test_a_quarter_has_what_sounds_at_its_beginning_and_0_for_a_rest():
    soprano = part((0, 2, 72), (2, 0.5, 74), (2.5, 1.5, 76))  # the quaver at 2.5 sounds at 3
    others = part((0, 1, 60), (3, 1, 62)), part((0.5, 3.5, 55)), part((0, 4, 48), (4, 1, 50))
    found = chorales._voices(Bag(parts=[soprano, *others]))
    want = np.array([[72, 72, 74, 76], [60, 0, 0, 62], [0, 55, 55, 55], [48, 48, 48, 48]]).T  # up to the first end
    np.testing.assert_array_equal(found, np.where(want, want - 35, 0))


def test_what_is_no_chorale_in_four_voices_is_left_out():
    voice = part((0, 4, 60))
    assert chorales._voices(Bag(parts=[voice] * 3)) is None
    assert chorales._voices(Bag(parts=[voice] * 3 + [part((0, 4, 35))])) is None  # below the range
    assert chorales._voices(Bag(parts=[voice] * 4)).tolist() == [[25] * 4] * 4


def test_no_chorale_is_in_both_parts(monkeypatch):
    """Ten pieces of 20 quarters, each of one pitch: one is held out, and windows do not cross pieces."""
    rows = np.repeat(np.arange(1, 11, dtype=np.uint8), 20)[:, None] * np.ones((1, 4), np.uint8)
    monkeypatch.setattr(chorales, "_all", lambda: (rows, np.repeat(np.arange(10, dtype=np.int32), 20)))
    config = ConfigDict(dict(name="chorales", shape=(8, 4, 1)))
    train, test = (EMBEDDED["chorales"](config, split) for split in ("train", "test"))
    x, y = (part.gather(np.arange(len(part)))["image"] for part in (train, test))
    assert x.shape == (9 * 4, 8, 4, 1) and y.shape == (2, 8, 4, 1)  # strides of 4 and of 8
    assert all(len(np.unique(window)) == 1 for window in (*x, *y))
    assert not set(np.unique(x)) & set(np.unique(y))
    config.shape = (8, 3, 1)
    with pytest.raises(InputError, match=r"data.shape=\(8, 3, 1\) disagrees"):
        EMBEDDED["chorales"](config, "train")
