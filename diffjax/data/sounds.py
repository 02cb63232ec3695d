"""Sounds as waves of 8 bits: tunes that are generated, and the user's own .wav files.

A sample y in [-1, 1] becomes one of 256 levels by the μ-law (ITU-T G.711, μ = 255), finer where sounds are quiet:

    v = sign(y) log(1 + μ|y|)/log(1 + μ),    level = round((v + 1)/2 · 255)

Tunes. Four notes of equal length, from two octaves of a pentatonic scale. A note of frequency f is a sum of harmonics
that fade, Σ_h a^h exp(-t (1 + h)/τ) sin(2π h f t + φ_h)/h, as of a plucked string; phases and brightness a are random.
"""

import wave
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from diffjax.data.dataset import Dataset, from_arrays
from diffjax.data.pictures import Part
from diffjax.errors import InputError

MU = 255
RATE = 8000  # samples a second of tunes
NOTES = 4
SCALE = 220.0 * 2.0 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21]) / 12)  # Hz
HARMONICS = 8
FADE = 0.12  # seconds until a note of one harmonic has fallen by e²


def to_levels(y: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Waves in [-1, 1] as levels 0 .. 255."""
    v = np.sign(y) * np.log1p(MU * np.abs(y)) / np.log1p(MU)
    return np.round((np.clip(v, -1.0, 1.0) + 1.0) / 2.0 * 255).astype(np.uint8)


def tunes(rng: np.random.Generator, num: int, length: int) -> UInt8[np.ndarray, "num length 1"]:
    """Tunes of `length` samples at `RATE`, as levels.

    Raises `InputError` unless the length is a multiple of the number of notes.
    """
    if length % NOTES or length < 64 * NOTES:
        raise InputError(
            f"data.shape=({length}, 1) must be a multiple of {NOTES} of at least {64 * NOTES} samples: a tune has"
            f" {NOTES} notes of equal length."
        )
    t = np.arange(length // NOTES) / RATE
    h = np.arange(1, HARMONICS + 1)[:, None]
    found = np.empty((num, NOTES, length // NOTES), np.float32)
    for i in range(num):
        for note in range(NOTES):
            f, bright = rng.choice(SCALE), rng.uniform(0.5, 0.9)
            phase = rng.uniform(0, 2 * np.pi, (HARMONICS, 1))
            waves = bright**h * np.exp(-t * (1 + h) / FADE) * np.sin(2 * np.pi * h * f * t + phase) / h
            y = waves.sum(0) * np.minimum(1.0, t * 500)  # without a click at the beginning
            found[i, note] = 0.8 * y / np.abs(y).max()
    return to_levels(found.reshape(num, length, 1))


def read(config: Any, directory: Path, training: Path, part: Part) -> Dataset:
    """Windows of config.shape = (length, 1) samples from all .wav files of a folder, one behind the other.

    Raises `InputError` if there is no .wav file, one that cannot be read or has not config.rate, or none that is long
    enough for a window.
    """
    length, rate = config.shape[0], config.get("rate", RATE)
    files = sorted(directory.rglob("*.wav"))
    if not files:
        raise InputError(f"data.dir={str(directory)!r} has no .wav file: name a directory of them.")
    windows = []
    for file in files:
        y = to_levels(_samples(file, rate))
        windows.append(y[: len(y) // length * length].reshape(-1, length, 1))
    found = np.concatenate(windows)
    if not len(found):
        raise InputError(f"No .wav file in {str(directory)!r} has {length} samples: choose a shorter data.shape.")
    return from_arrays("wav", found[part(len(found))], levels=256)


def _samples(file: Path, rate: int) -> Float[np.ndarray, " length"]:
    """The mean of all channels, in [-1, 1]."""
    try:
        with wave.open(str(file)) as opened:
            theirs, width, channels = opened.getframerate(), opened.getsampwidth(), opened.getnchannels()
            data = opened.readframes(opened.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise InputError(f"{file} cannot be read as a .wav file ({error}): convert it to 16-bit PCM.") from error
    if theirs != rate:
        raise InputError(f"{file} has {theirs} samples a second and data.rate={rate}: resample it, or set data.rate.")
    if width not in (1, 2):
        raise InputError(f"{file} has {8 * width} bits a sample: convert it to 16-bit PCM.")
    y = np.frombuffer(data, "<i2" if width == 2 else np.uint8).astype(np.float64)
    return (y / 32768 if width == 2 else y / 128 - 1).reshape(-1, channels).mean(1)
