"""The μ-law against its inverse, tunes by their spectrum, and .wav files of the user."""

import wave

import numpy as np
import pytest
from ml_collections import ConfigDict

from diffjax import data
from diffjax.data import sounds
from diffjax.errors import InputError


def test_the_mu_law_and_its_inverse():
    y = np.linspace(-1, 1, 2001)
    v = sounds.to_levels(y) / 127.5 - 1
    back = np.sign(v) * (256 ** np.abs(v) - 1) / 255
    assert np.abs(back - y).max() < 0.025  # half a level at the loud end
    quiet = np.abs(y) < 0.01
    assert np.abs(back - y)[quiet].max() < 3e-4
    assert sounds.to_levels(np.array([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_each_note_of_a_tune_is_a_note_of_the_scale():
    """The strongest frequency of each quarter is one of the scale's, or twice it."""
    waves = sounds.tunes(np.random.default_rng(0), 6, 8192)[..., 0]
    v = waves / 127.5 - 1
    y = (np.sign(v) * (256 ** np.abs(v) - 1) / 255).reshape(6, 4, 2048)
    strongest = np.abs(np.fft.rfft(y * np.hanning(2048))).argmax(-1) * sounds.RATE / 2048
    near = np.abs(strongest[..., None] - np.concatenate([sounds.SCALE, 2 * sounds.SCALE])).min(-1)
    assert (near <= sounds.RATE / 2048).all()
    assert len(np.unique(strongest)) > 5
    with pytest.raises(InputError, match="must be a multiple of 4"):
        sounds.tunes(np.random.default_rng(0), 1, 4097)


def _write(path, y, rate=8000, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, len(y), "NONE", ""))
        file.writeframes(y.tobytes())


def test_wav_files_are_cut_into_windows(tmp_path):
    t = np.arange(1000)
    loud = np.round(20000 * np.sin(t / 7)).astype("<i2")
    _write(tmp_path / "a" / "one.wav", loud)
    _write(tmp_path / "two.wav", np.repeat(loud, 2), channels=2)  # both channels alike
    config = ConfigDict(dict(name="wav", dir=str(tmp_path), shape=(256, 1), levels=256, rate=8000, test_fraction=0.25))
    train, test = (data.load(config, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    found = np.concatenate([s.gather(np.arange(len(s)))["image"] for s in (train, test)])
    want = sounds.to_levels(loud / 32768)[:768].reshape(3, 256)
    assert sorted(map(bytes, found[..., 0])) == sorted(2 * [bytes(row) for row in want])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(rate=16000), r"has 8000 samples a second and data.rate=16000: resample it, or set data.rate"),
        (dict(shape=(5000, 1)), "has 5000 samples: choose a shorter data.shape"),
    ],
)
def test_sounds_that_do_not_fit(tmp_path, fields, words):
    _write(tmp_path / "one.wav", np.zeros(1000, "<i2"))
    config = ConfigDict(dict(name="wav", dir=str(tmp_path), shape=(256, 1), levels=256, rate=8000))
    config.update(fields)
    with pytest.raises(InputError, match=words):
        data.load(config, "train")


def test_files_that_are_no_sounds(tmp_path):
    config = ConfigDict(dict(name="wav", dir=str(tmp_path), shape=(256, 1), levels=256, rate=8000))
    with pytest.raises(InputError, match=r"has no \.wav file"):
        data.load(config, "train")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"cannot be read as a \.wav file"):
        data.load(config, "train")
    _write(tmp_path / "bad.wav", np.zeros(3000, np.uint8), width=3)
    with pytest.raises(InputError, match="has 24 bits a sample: convert it to 16-bit PCM"):
        data.load(config, "train")
