"""Toy sets of Sohl-Dickstein et al. (2015), drawn exactly, as pure functions of a numpy generator.

Swiss roll. The angle a is uniform on [3π/2, 9π/2] and the curve is c = (a cos a, a sin a), as in scikit-learn's
`make_swiss_roll`. With m and s its mean and standard deviation in each coordinate,

    x = √(1 - noise²) (c - m) / s + noise ε,    m = (2, 2/(3π)),    s² = (39π²/8 - 1/4, 39π²/8 + 1/4) - m²,

so that each coordinate has mean 0 and variance 1 exactly, whatever the noise. m and s² follow from E[a²] = 39π²/4,
E[a² cos 2a] = -1/2 and integration by parts.

Heartbeat. A sequence of bits with a one at every `period`-th place, all phases alike: log₂ p = -log₂ period.
"""

import math

import numpy as np
from jaxtyping import Float32, UInt8

from diffjax.errors import InputError

_ROLL_MEAN = np.array([2, 2 / (3 * math.pi)])
_ROLL_STD = np.sqrt(39 * math.pi**2 / 8 + np.array([-1 / 4, 1 / 4]) - _ROLL_MEAN**2)


def swiss_roll(rng: np.random.Generator, num: int, noise: float) -> Float32[np.ndarray, "num 2"]:
    """Points on a spiral, blurred by Gaussian noise.

    noise: its standard deviation, in units of the points' own standard deviation.
    Raises `InputError` unless 0 < noise < 1.
    """
    if not 0 < noise < 1:
        raise InputError(f"noise={noise} must be between 0 and 1, both excluded: it is a part of the unit variance.")
    angle = 1.5 * math.pi * (1 + 2 * rng.random((num, 1)))
    curve = (angle * np.concatenate([np.cos(angle), np.sin(angle)], axis=1) - _ROLL_MEAN) / _ROLL_STD
    return (math.sqrt(1 - noise**2) * curve + noise * rng.standard_normal((num, 2))).astype(np.float32)


def heartbeat(rng: np.random.Generator, num: int, length: int = 20, period: int = 5) -> UInt8[np.ndarray, "num length"]:
    """Bit sequences of which every `period`-th is one, at a phase uniform in 0 .. period - 1.

    Raises `InputError` unless 1 <= period <= length.
    """
    if not 1 <= period <= length:
        raise InputError(f"period={period} must be between 1 and length={length}.")
    phase = rng.integers(0, period, (num, 1))
    return (np.arange(length) % period == phase).astype(np.uint8)
