"""Times for samplers: from 1 down to 0, spaced by noise level. With ς = sigma/alpha, level i of n, 0 <= i < n, has

    karras       ς^(1/ρ) equidistant          (Karras et al. 2022, eq. 5; ρ = 7)
    log_snr      log ς equidistant            (Lu et al. 2022)
    exponential  the same by its other name
    time         t = 1 - i/n

and time n is 0. The last level is that of the time `last`, except for "time". Where ς is infinite at t = 1, the levels
are spaced from that of t = 1 - last, and the first time is still 1.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import eager, registry, schedules
from diffjax.dtypes import floating
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.samplers.driver import spaced
from diffjax.schedules import Discrete, Schedule
from diffjax.sde.equations import sample_from, times
from diffjax.sde.flow import earliest

SPACINGS = ("karras", "log_snr", "time", "exponential")


def grid(schedule: Schedule, sampling: Mapping[str, Any]) -> Float[Array, " num_times"]:
    """The times of `sampling.{steps, spacing, rho}`. Without a spacing: `spaced` times for a chain, else `sde.times`.

    Raises:
        InputError: as `noise_levels`, or as `spaced`.
    """
    steps, spacing = sampling["steps"], sampling.get("spacing", "")
    if spacing:
        return noise_levels(schedule, steps, spacing, sampling.get("rho", 7.0))
    return spaced(schedule.times, steps) if isinstance(schedule, Discrete) else times(schedule, steps)


def noise_levels(
    schedule: Schedule, num_steps: int, spacing: str = "karras", rho: ArrayLike = 7.0, last: float | None = None
) -> Float[Array, " num_times"]:
    """num_steps + 1 times, strictly decreasing from 1 to 0. Nothing is rounded to a chain's grid.

    Args:
        spacing: one of `SPACINGS`.
        rho: of "karras".
        last: the time before 0. None is that of `sigma_min` for `schedules.edm`, the first time of a chain, and
            otherwise `sde.sample_from`.

    Raises:
        InputError: on an unknown spacing, num_steps that is no positive integer, rho that is not positive, `last`
            not in (0, 1/2], or so many steps that their times are equal to rounding.
    """
    check_num_steps("num_steps", num_steps)
    registry.choose("sampling.spacing", spacing, SPACINGS)
    last = earliest(schedule, sample_from(schedule)) if last is None else last
    if not 0 < last <= 0.5:
        raise InputError(f"last must be a time in (0, 1/2], not {last}")
    if not isinstance(rho, jax.core.Tracer) and not np.asarray(rho) > 0:
        raise InputError(f"rho must be positive, not {rho}")
    num, dtype = int(num_steps), floating(rho)
    if spacing == "time" or num == 1:
        return jnp.asarray(1.0 - np.arange(num + 1) / num, dtype)
    if num == 2:
        return jnp.asarray([1.0, last, 0.0], dtype)

    def between(schedule: Schedule, rho: Array) -> Array:
        first, least = (jnp.asarray(schedule.log_snr(jnp.asarray(t, dtype)), dtype) for t in (1.0, last))
        first = jnp.where(jnp.isfinite(first), first, schedule.log_snr(jnp.asarray(1.0 - last, dtype)).astype(dtype))
        part = jnp.arange(1, num - 1, dtype=dtype) / (num - 1)
        if spacing == "karras":
            high, low = jnp.exp(-0.5 * first / rho), jnp.exp(-0.5 * least / rho)
            log_snr = -2.0 * rho * jnp.log(high + part * (low - high))
        else:
            log_snr = first + part * (least - first)
        return jnp.concatenate(
            [jnp.ones(1, dtype), schedules.time_of(schedule, log_snr), jnp.asarray([last, 0], dtype)]
        )

    found = eager.once(between, schedule, jnp.asarray(rho, dtype))
    if not isinstance(found, jax.core.Tracer) and not (np.diff(np.asarray(found)) < 0).all():
        raise InputError(f"num_steps={num_steps} are too many for {dtype}: times of the {spacing} grid are equal")
    return found
