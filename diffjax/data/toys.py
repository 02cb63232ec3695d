"""Toy sets, those of Sohl-Dickstein et al. (2015) and others, drawn exactly, as pure functions of a numpy generator.

Swiss roll. The angle a is uniform on [3π/2, 9π/2] and the curve is c = (a cos a, a sin a), as in scikit-learn's
`make_swiss_roll`. With m and s its mean and standard deviation in each coordinate,

    x = √(1 - noise²) (c - m) / s + noise ε,    m = (2, 2/(3π)),    s² = (39π²/8 - 1/4, 39π²/8 + 1/4) - m²,

so that each coordinate has mean 0 and variance 1 exactly, whatever the noise. m and s² follow from E[a²] = 39π²/4,
E[a² cos 2a] = -1/2 and integration by parts.

Two moons. Half circles c = (cos a, sin a) and c = (1 - cos a, 1/2 - sin a), as in scikit-learn's `make_moons`, with
equal weights and a uniform on [0, π]. Standardised as the swiss roll is, by m = (1/2, 1/4), s² = (3/4, 9/16 - 1/π).

Heartbeat. A sequence of bits with a one at every `period`-th place, all phases alike: log₂ p = -log₂ period.

Dead leaves. Opaque discs fall on one another until no pixel is bare; seen from below, the first that covers a pixel is
the one that shows. With u uniform, radii are r = [r_min⁻² - u (r_min⁻² - r_max⁻²)]^(-1/2), the density ∝ r⁻³ under
which an image and its enlargement look alike. Centres are uniform on the window padded by r_max, greys uniform and
independent. Two pixels show the same leaf, and so have the correlation, with probability γ(d) / (2γ(0) - γ(d)), where
d is their distance and γ(d) the mean over radii of the area in which two discs of that radius at distance d overlap.
Source: Lee, Mumford and Huang (2001), "Occlusion models for natural images".

Stomach cancer. Deaths and people at risk in the 20 largest cities of Missouri, men of 45 to 64 years: Tsutakawa, Shoop
and Marienfeld (1985); Albert (2009), "Bayesian computation with R", section 5.4.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from diffjax.errors import InputError

Floats = Float64[np.ndarray, "..."] | Sequence[float] | Sequence[Sequence[float]]
_ROLL_MEAN = np.array([2, 2 / (3 * math.pi)])
_ROLL_STD = np.sqrt(39 * math.pi**2 / 8 + np.array([-1 / 4, 1 / 4]) - _ROLL_MEAN**2)
_MOONS_MEAN = np.array([1 / 2, 1 / 4])
_MOONS_STD = np.sqrt([3 / 4, 9 / 16 - 1 / math.pi])

# fmt: off
_DEATHS = [0, 0, 2, 0, 1, 1, 0, 2, 1, 3, 0, 1, 1, 1, 54, 0, 0, 1, 3, 0]
_AT_RISK = [1083, 855, 3461, 657, 1208, 1025, 527, 1668, 583, 582, 917, 857, 680, 917, 53637, 874, 395, 581, 588, 383]
# fmt: on


def stomach_cancer() -> Float32[np.ndarray, "20 2"]:
    """Deaths and people at risk in 20 cities."""
    return np.stack([_DEATHS, _AT_RISK], axis=1).astype(np.float32)


def correlated(rng: np.random.Generator, num: int, sigmas: tuple[float, float]) -> Float32[np.ndarray, "num 2"]:
    """Draws of p(z) ∝ exp[-(z_1 - z_2)²/(2σ_1²) - (z_1 + z_2)²/(2σ_2²)] (Salimans, Kingma and Welling 2015)."""
    difference, total = rng.standard_normal((num, 2)).T * np.reshape(sigmas, (2, 1))
    return (np.stack([total + difference, total - difference], axis=1) / 2).astype(np.float32)


def mixture(
    rng: np.random.Generator, num: int, weights: Floats, means: Floats, std: float
) -> Float32[np.ndarray, "num dim"]:
    """Draws of Σ_k weights[k] N(means[k], std² I).

    Raises `InputError` unless the weights are positive and sum to 1, the means as many and of one length, std positive.
    """
    parts, centres = np.asarray(weights, float), np.asarray(means, float)
    total = parts.sum()
    if centres.ndim != 2 or parts.shape != centres.shape[:1] or not np.isclose(total, 1) or parts.min() <= 0:
        raise InputError(
            f"weights={parts.tolist()} must be positive, sum to 1, and be as many as means={centres.tolist()}."
        )
    if not std > 0:
        raise InputError(f"std={std} must be positive.")
    which = rng.choice(len(parts), num, p=parts / total)
    return (centres[which] + std * rng.standard_normal((num, centres.shape[1]))).astype(np.float32)


def swiss_roll(rng: np.random.Generator, num: int, noise: float) -> Float32[np.ndarray, "num 2"]:
    """Points on a spiral, blurred by Gaussian noise.

    noise: its standard deviation, in units of the points' own standard deviation.
    Raises `InputError` unless 0 < noise < 1.
    """
    angle = 1.5 * math.pi * (1 + 2 * rng.random((num, 1)))
    curve = angle * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return _blurred(rng, (curve - _ROLL_MEAN) / _ROLL_STD, noise)


def two_moons(rng: np.random.Generator, num: int, noise: float) -> Float32[np.ndarray, "num 2"]:
    """Points on two half circles that reach into each other, blurred by Gaussian noise.

    noise: as of `swiss_roll`.
    Raises `InputError` unless 0 < noise < 1.
    """
    angle, lower = math.pi * rng.random(num), rng.random(num) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return _blurred(rng, (np.stack([x, y], axis=1) - _MOONS_MEAN) / _MOONS_STD, noise)


def _blurred(rng: np.random.Generator, curve: np.ndarray, noise: float) -> Float32[np.ndarray, "num 2"]:
    """Points of unit variance, of which the noise is a part."""
    if not 0 < noise < 1:
        raise InputError(f"noise={noise} must be between 0 and 1, both excluded: it is a part of the unit variance.")
    return (math.sqrt(1 - noise**2) * curve + noise * rng.standard_normal(curve.shape)).astype(np.float32)


def heartbeat(rng: np.random.Generator, num: int, length: int = 20, period: int = 5) -> UInt8[np.ndarray, "num length"]:
    """Bit sequences of which every `period`-th is one, at a phase uniform in 0 .. period - 1.

    Raises `InputError` unless 1 <= period <= length.
    """
    if not 1 <= period <= length:
        raise InputError(f"period={period} must be between 1 and length={length}.")
    phase = rng.integers(0, period, (num, 1))
    return (np.arange(length) % period == phase).astype(np.uint8)


def dead_leaves(
    rng: np.random.Generator, num: int, size: int, min_radius: float, max_radius: float
) -> UInt8[np.ndarray, "num size size 1"]:
    """Grey images of size x size pixels, tiled by overlapping discs with radii in pixels.

    Half a millisecond an image of 32 x 32.
    Raises `InputError` unless 0.5 <= min_radius < max_radius.
    """
    # Much smaller discs fall between the pixels, and it takes very many to cover the last one.
    if not 0.5 <= min_radius < max_radius < math.inf:
        raise InputError(
            f"min_radius={min_radius} and max_radius={max_radius} pixels must satisfy 0.5 <= min_radius < max_radius."
        )
    side = size - 1 + 2 * max_radius
    largest, smallest = min_radius**-2, max_radius**-2  # of r⁻²
    mean_area = 2 * math.pi * math.log(max_radius / min_radius) / (largest - smallest)
    fall = math.ceil(side**2 / mean_area)  # leaves an image that fall at once: they cover a pixel once on average
    group = max(1, 2**20 // max(fall, size**2))  # images at once, for memory's sake
    images = np.empty((num, size * size), np.uint8)
    for first in range(0, num, group):
        part = images[first : first + group]
        bare = np.ones(part.shape, bool)
        while (unfinished := np.flatnonzero(bare.any(axis=1))).size:
            shape = (len(unfinished), fall)
            radius = (largest - rng.random(shape) * (largest - smallest)) ** -0.5
            y, x = rng.random((2, *shape)) * side - max_radius
            grey = rng.integers(0, 256, shape, np.uint8)
            leaf = _first_leaves(y, x, radius, size)
            image, pixel = np.nonzero(bare[unfinished] & (leaf < grey.size))
            part[unfinished[image], pixel] = grey.ravel()[leaf[image, pixel]]
            bare[unfinished[image], pixel] = False
    return images.reshape(num, size, size, 1)


def _first_leaves(
    y: Float64[np.ndarray, "n leaves"],
    x: Float64[np.ndarray, "n leaves"],
    radius: Float64[np.ndarray, "n leaves"],
    size: int,
) -> Int64[np.ndarray, "n pixels"]:
    """The index into the raveled leaves of the first one that covers each pixel, n * leaves where none does.

    Discs are listed as rows and rows as pixels, so the cost is the pixels covered and not leaves x pixels.
    """
    n, leaves = radius.shape
    y, x, radius = y.ravel(), x.ravel(), radius.ravel()
    disc, row = _integers_within(y, radius, size)
    half_width = np.sqrt(np.maximum(radius[disc] ** 2 - (row - y[disc]) ** 2, 0))  # rounding may go below 0
    chord, column = _integers_within(x[disc], half_width, size)
    first = np.full((n, size * size), n * leaves)
    pixel = (disc // leaves)[chord] * size**2 + row[chord] * size + column
    np.minimum.at(first.reshape(-1), pixel, disc[chord])
    return first


def _integers_within(
    centre: Float64[np.ndarray, " n"], half: Float64[np.ndarray, " n"], size: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """All pairs (i, k) with |k - centre[i]| <= half[i] and 0 <= k < size, ordered by i."""
    low = np.maximum(np.ceil(centre - half), 0).astype(int)
    high = np.minimum(np.floor(centre + half), size - 1).astype(int)
    count = np.maximum(high - low + 1, 0)
    i = np.repeat(np.arange(len(count)), count)
    start = np.cumsum(count) - count
    return i, np.arange(len(i)) + (low - start)[i]
