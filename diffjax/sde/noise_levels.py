"""Noise levels and Langevin steps chosen from the data (Song & Ermon 2020).

    technique 1  sigma_max is the largest distance between two examples: at the top, every example reaches every other.
    technique 2  Levels fall by a factor γ with Φ(√(2D)(γ - 1) + 3γ) - Φ(√(2D)(γ - 1) - 3γ) ≈ ½, D the size of an
                 example. A sample of one level is at a distance N(√D sigma, ½ sigma²) from its example. The formula is
                 the chance that it is within three standard deviations of where samples of the next level are.
    technique 3  One network serves all levels as s(x, sigma) = s(x)/sigma: a prediction of kind "eps", up to its sign,
                 whose network need not look at t.
    technique 4  As many Langevin steps per level as you can afford, and the ε with which they bring the variance of one
                 level as near as possible to the variance of the next (proposition 3).
    technique 5  The parameters are averaged over training, at a rate of 0.999.

Levels given by (sigma_max, sigma_min, number) are geometric, as in `schedules.ve`; `level_times` has the times of any.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.schedules import VE, ve


def largest_distance(x: ArrayLike, chunk: int = 1000) -> float:
    """max ‖x_i - x_j‖, in the units of x. The time is quadratic in the number of examples; 10,000 are enough.

    Args:
        x: (batch, *event), at least two examples.
        chunk: `chunk` x batch distances are in memory at a time.

    Raises:
        InputError: if there are fewer than two examples, or x is not finite, or chunk no positive integer.
    """
    check_num_steps("chunk", chunk)
    x = np.asarray(x)
    if x.ndim == 0 or x.shape[0] < 2:
        raise InputError(f"x must hold at least two examples, (batch, *event), not be of shape {x.shape}")
    if not np.isfinite(x).all():
        raise InputError("x has NaN or infinite values: leave these examples out")
    flat = x.reshape(x.shape[0], -1)
    # Centred, because ‖a‖² + ‖b‖² - 2 a·b loses what a and b have in common.
    flat = (flat - flat.mean(0)).astype(np.float32)
    squared, largest = (flat**2).sum(-1), 0.0
    for i in range(0, len(flat), chunk):
        here = slice(i, i + chunk)
        distances = squared[here, None] + squared[i:] - 2.0 * np.matmul(flat[here], flat[i:].T)
        largest = max(largest, float(distances.max()))
    return math.sqrt(largest)


def overlap(dim: int, sigma_max: float, sigma_min: float, num_levels: int) -> float:
    """The quantity that technique 2 sets near ½, for `num_levels` geometric levels; 0.997 at most.

    The levels that the paper publishes for its five data sets have 0.567, e.g. CIFAR-10's 232 from 50 to 0.01.

    Raises:
        InputError: unless dim and num_levels are integers, dim >= 1, 0 < sigma_min < sigma_max and num_levels >= 2.
    """
    check_num_steps("dim", dim)
    ratio = _ratio(sigma_max, sigma_min, num_levels)
    apart = math.sqrt(2.0 * dim) * (ratio - 1.0)
    return _phi(apart + 3.0 * ratio) - _phi(apart - 3.0 * ratio)


def num_levels(dim: int, sigma_max: float, sigma_min: float, least: float = 0.5) -> int:
    """Technique 2: the smallest number of levels whose `overlap` is at least `least`. 220 for CIFAR-10.

    Raises:
        InputError: as `overlap`, or if `least` is not in (0, 0.997).
    """
    if not 0 < least < 0.997:
        raise InputError(f"the least overlap must be in (0, 0.997), not {least}: equal levels have no more")
    return next(n for n in itertools.count(2) if overlap(dim, sigma_max, sigma_min, n) >= least)


def langevin_variance(variance: ArrayLike, step_size: ArrayLike, target: ArrayLike, num_steps: ArrayLike) -> ArrayLike:
    """The variance after `num_steps` of x + h score + √(2h) z from N(0, `variance`), with the score of N(0, `target`).

    It is elementwise. A step takes v to (1 - h/target)² v + 2h, whose fixed point is target/(1 - h/(2 target)).
    """
    fixed = target / (1.0 - 0.5 * step_size / target)
    return fixed + (1.0 - step_size / target) ** (2 * num_steps) * (variance - fixed)


def step_size(sigma_max: float, sigma_min: float, num_levels: int, num_steps: int) -> float:
    """Technique 4: the ε of `annealed_langevin` with `num_steps` steps a level. 6.2e-6 for CIFAR-10.

    The steps of h = ε sigma_i²/sigma_min² start from the variance sigma_{i-1}². The variance that they reach exceeds
    sigma_i² by the same factor at every level; ε minimises this factor.

    Raises:
        InputError: unless 0 < sigma_min < sigma_max, num_levels >= 2 and num_steps is a positive integer.
    """
    check_num_steps("num_steps", num_steps)
    ratio = _ratio(sigma_max, sigma_min, num_levels)
    share = np.geomspace(1e-7, 1.0, 1_000_001)[:-1]  # h/sigma_i², below 1: larger steps overshoot the mean
    return float(sigma_min**2 * share[np.argmin(langevin_variance(ratio**2, share, 1.0, int(num_steps)))])


def level_times(schedule: VE, levels: ArrayLike) -> Float[Array, " num_levels"]:
    """The times at which `schedule` has these noise levels, for a sampler: from 1 down to 0.

    Raises:
        InputError: unless the levels fall strictly, from the schedule's sigma_max to its sigma_min.
    """
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) < 0).all():
        raise InputError(f"levels must be at least two and decrease strictly, not {levels}")
    ends = np.array([schedule.sigma_max, schedule.sigma_min], np.float64)
    if not np.allclose(levels[[0, -1]], ends, rtol=1e-5, atol=0):
        raise InputError(f"levels must fall from the schedule's {ends[0]} to its {ends[1]}, not {levels}")
    # Set the ends exactly: a sampler looks for s = 0, and single precision would miss it.
    inner = np.log(levels[1:-1] / ends[1]) / math.log(ends[0] / ends[1])
    return jnp.asarray(np.concatenate([[1.0], inner, [0.0]]), float)


def _ratio(sigma_max: float, sigma_min: float, num_levels: int) -> float:
    """γ, the ratio of one level to the next."""
    ve(sigma_min, sigma_max)  # it says what is wrong with the two
    check_num_steps("num_levels", num_levels)
    if num_levels < 2:
        raise InputError(f"num_levels must be at least 2, not {num_levels}")
    return (sigma_max / sigma_min) ** (1.0 / (int(num_levels) - 1))


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
