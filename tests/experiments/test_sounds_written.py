"""A figure that is a sound becomes a .wav file."""

import wave

import numpy as np

from diffjax.zoo.figures import Sound
from experiments import pictures


def test_a_sound_is_written_with_silence_after_each_wave(tmp_path):
    waves = np.stack([np.sin(np.arange(200) / 5), np.linspace(-2, 2, 200)])  # the second is louder than full scale
    path = pictures.write(tmp_path / "tune", Sound(waves, 400))
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (400, 1, 2)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(2, 300) / 32767
    np.testing.assert_allclose(heard[:, :200], np.clip(waves, -1, 1), atol=1 / 32767)
    np.testing.assert_array_equal(heard[:, 200:], 0)
