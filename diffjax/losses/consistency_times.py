"""The pairs of times at which a consistency model is trained, and how their distance shrinks (Song & Dhariwal 2024).

With the noise level ς = sigma/alpha, there are N intervals between N + 1 levels that are equidistant in ς^(1/ρ):

    ς_i = (ς_min^(1/ρ) + i/N (ς_max^(1/ρ) - ς_min^(1/ρ)))^ρ,   ρ = 7,   i = 0 .. N          (Karras et al. 2022, eq. 5)
    p(i) ∝ erf((log ς_{i+1} - m)/(√2 d)) - erf((log ς_i - m)/(√2 d)),   m = -1.1, d = 2     (section 3.5)
    N(k) = min(N_0 2^⌊k/K'⌋, N_1),   K' = ⌊K/(⌊log2(N_1/N_0)⌋ + 1)⌋                         (section 3.4)

at step k of K. To choose i, a level is drawn from a truncated log-normal law, and i is the interval that contains it.
So no table of p is needed, and N may be traced. A schedule without signal at the end has ς_max = inf, which would make
the last level but one infinite, too. There the levels are spaced up to that of 1 - t_min, and the last is put at t = 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.errors import InputError
from diffjax.schedules import Schedule, time_of


class Pairs(NamedTuple):
    """Times s < t next to each other on the grid, and weight = 1/(ς_t - ς_s), all (num,)."""

    s: Float[Array, " num"]
    t: Float[Array, " num"]
    weight: Float[Array, " num"]


class Curriculum(NamedTuple):
    """N(k): from `initial` intervals to `final`, doubled at equal distances within `steps` steps."""

    steps: int
    initial: int = 10
    final: int = 1280

    def intervals(self, step: ArrayLike) -> Array:
        """N at a step, which may be traced.

        Raises:
            InputError: unless 1 <= initial <= final.
        """
        if not 1 <= self.initial <= self.final:
            raise InputError(f"initial={self.initial} must be at least 1 and at most final={self.final} intervals")
        stages = math.floor(math.log2(self.final / self.initial)) + 1
        doublings = jnp.asarray(step) // max(self.steps // stages, 1)
        return jnp.minimum(self.initial * 2 ** jnp.minimum(doublings, stages), self.final)


def consistency_pairs(
    schedule: Schedule,
    u: Float[Array, " num"],
    intervals: ArrayLike,
    t_min: float,
    rho: float = 7.0,
    mean: float = -1.1,
    std: float = 2.0,
) -> Pairs:
    """The interval of each u in [0, 1), a quantile of the log-normal law of levels between t_min and 1.

    Args:
        intervals: N, a number or traced.
        t_min: the first time, that of `consistency_function`.
        mean, std: of log ς.
    """
    u = jnp.asarray(u)
    low, high = (jnp.exp(-0.5 * schedule.log_snr(jnp.asarray(t, u.dtype))) for t in (t_min, 1.0))
    high = jnp.where(jnp.isfinite(high), high, jnp.exp(-0.5 * schedule.log_snr(jnp.asarray(1.0 - t_min, u.dtype))))
    first, last = (ndtr((jnp.log(level) - mean) / std) for level in (low, high))
    level = jnp.exp(mean + std * ndtri(first + u * (last - first)))
    bottom, top = low ** (1 / rho), high ** (1 / rho)
    place = (level ** (1 / rho) - bottom) / (top - bottom)
    i = jnp.clip(jnp.floor(place * intervals), 0, jnp.asarray(intervals) - 1)

    def at(i: Array) -> Array:
        return (bottom + i / intervals * (top - bottom)) ** rho

    below, above = at(i), at(i + 1)
    s = jnp.where(i == 0, t_min, time_of(schedule, -2.0 * jnp.log(below)))
    t = jnp.where(i + 1 == intervals, 1.0, time_of(schedule, -2.0 * jnp.log(above)))
    return Pairs(jax.lax.stop_gradient(s), jax.lax.stop_gradient(t), 1.0 / (above - below))
