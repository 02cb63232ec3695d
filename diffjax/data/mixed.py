"""Sets for energy models, as pure functions of a numpy generator: mixed sources, patches, and bits with couplings.

Mixed sources. x = A s, with independent logistic sources s of variance 1, density p(s) = π/(4√3) sech²(πs/(2√3)).

Patches. Square parts of photographs in scikit-image's wheel, in logarithms of grey values. The mean of each patch is
removed. The components of largest variance are kept, as many as are asked for, and scaled to variance 1.

Coupled bits. p(x) ∝ exp(x'Jx), x in {0, 1}^D, by a sum over all 2^D arrays. J is symmetric with entries N(0, 1/2).
"""

import math
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, UInt8

from diffjax.errors import InputError
from diffjax.extras import needs_run

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket", "grass", "gravel", "brick")
PATCHES = 50_000  # from which the whitening is computed


def mixed_sources(
    rng: np.random.Generator, num: int, matrix: Float[np.ndarray, "dim dim"]
) -> Float32[np.ndarray, "num dim"]:
    """Draws of x = A s, A the matrix.

    Raises `InputError` unless the matrix is square, of at least two rows, and can be inverted.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2 or np.linalg.cond(matrix) > 1e6:
        raise InputError(f"data.matrix={matrix.tolist()} must be a square matrix that can be inverted, at least 2 x 2.")
    sources = rng.logistic(0.0, math.sqrt(3) / math.pi, (num, len(matrix)))
    return (sources @ matrix.T).astype(np.float32)


def coupled_bits(rng: np.random.Generator, num: int, dim: int) -> UInt8[np.ndarray, "num dim"]:
    """Exact draws. The couplings are the same for every split.

    Raises `InputError` unless 2 <= dim <= 16.
    """
    if not 2 <= dim <= 16:
        raise InputError(f"data.shape=({dim},) must be 2 to 16 bits: 'coupled_bits' sums over all arrays.")
    arrays, p = coupled_law(dim)
    return arrays[rng.choice(len(arrays), num, p=p)]


def coupled_law(dim: int) -> tuple[UInt8[np.ndarray, "n dim"], Float[np.ndarray, " n"]]:
    """All arrays of `dim` bits, and the probability of each."""
    couplings = np.random.default_rng(7).normal(0.0, math.sqrt(0.5), (dim, dim))
    arrays = (np.arange(2**dim)[:, None] >> np.arange(dim) & 1).astype(np.uint8)
    log_p = np.einsum("ni,ij,nj->n", arrays, couplings, arrays)
    p = np.exp(log_p - log_p.max())
    return arrays, p / p.sum()


def patches(rng: np.random.Generator, num: int, side: int, dim: int) -> Float32[np.ndarray, "num dim"]:
    """Whitened patches of side x side pixels, in `dim` components.

    Raises `InputError` unless 1 <= dim < side².
    """
    if not 1 <= dim < side**2:
        raise InputError(f"data.shape=({dim},) must be below data.side²={side**2}: the mean of a patch is removed.")
    mean, whitener, _ = _whitening(side, dim)
    return ((_cut(rng, num, side) - mean) @ whitener.T).astype(np.float32)


def filters(weights: Float[np.ndarray, "k dim"], side: int) -> Float[np.ndarray, "k side side"]:
    """Filters of the whitened components as patterns of pixels: what each looks for in a patch."""
    _, _, unwhitener = _whitening(side, weights.shape[1])
    return (weights @ unwhitener.T).reshape(len(weights), side, side)


@cache
def _whitening(side: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, whitener (dim, side²) and its transpose scaled back (side², dim), of the training patches."""
    cut = _cut(np.random.default_rng(0), PATCHES, side)
    mean = cut.mean(0)
    values, vectors = np.linalg.eigh(np.cov(cut - mean, rowvar=False))
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    return mean, vectors.T / np.sqrt(values)[:, None], vectors * np.sqrt(values)


def _cut(rng: np.random.Generator, num: int, side: int) -> np.ndarray:
    """Patches (num, side²) of grey photographs, each less its own mean."""
    images = _photographs()
    which = rng.integers(0, len(images), num)
    found = np.empty((num, side, side), np.float32)
    for i, image in enumerate(images):
        (mine,) = np.nonzero(which == i)
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        rows, columns = (rng.integers(0, places, len(mine)) for places in windows.shape[:2])
        found[mine] = windows[rows, columns]
    flat = found.reshape(num, -1)
    return flat - flat.mean(1, keepdims=True)


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    with needs_run():
        from skimage import color, data

    images = [getattr(data, name)() for name in PHOTOGRAPHS]
    return tuple(np.log1p(255 * (color.rgb2gray(x) if x.ndim == 3 else x / 255)).astype(np.float32) for x in images)
