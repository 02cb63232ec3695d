"""The probability flow: an ordinary differential equation with the marginals of the diffusion (Song et al. 2021, 4.3).

    dx/dt = f(x, t) - ½ g(t)² ∇log p_t(x)          `equations.velocity`

It carries data to latents distributed as the prior, and latents to data. Both directions are deterministic, and they
invert each other up to the tolerance. Steps are adaptive and shared by the whole batch: `ode` says what that means.
For a few fixed steps, use `samplers.heun`.

Outside `jit` every call traces the program anew, and compiles it once (`eager.once`); with `save` it compiles anew.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes, eager
from diffjax.errors import InputError
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.schedules import EDM, VE, Discrete, Schedule
from diffjax.sde.equations import sample_from, velocity
from diffjax.sde.ode import MAX_STEPS, known, solve


class Transport(NamedTuple):
    """The result of carrying a batch along the flow.

    x: (batch, *event), at the end.
    saved: (num_times, batch, *event), at the times asked for; None without any.
    num_evaluations: (), calls of the network, each on the whole batch.
    """

    x: Float[Array, "batch *event"]
    saved: Float[Array, "num_times batch *event"] | None
    num_evaluations: Array


def transport(
    process: Gaussian,
    predict: Predict,
    x: Float[Array, "batch *event"],
    start: ArrayLike,
    end: ArrayLike,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
    save: Float[Array, " num_times"] | None = None,
) -> Transport:
    """Carries x from time `start` to time `end`, forwards or backwards.

    Args:
        start, end: in (0, 1]; in [0, 1] for `ve`, which has noise left at 0.
        rtol, atol: of one step, for every example. In float32, values below about 1e-6 are lost in rounding.
        max_steps: the limit on steps, accepted and rejected ones.
        save: times between `start` and `end`, in that order, at which to keep x: read off each step's interpolant.

    Returns:
        The batch in its own type, 16-bit types as float32. NaN for an example that is not finite or whose prediction is
        not.

    Raises:
        InputError: on times out of range or order, on tolerances that are not positive and finite, and if max_steps do
            not reach the end. Under `jit` this last error cannot be raised: the result is then NaN.
    """
    check_interval(process, start, end)
    if save is not None:
        _check_save(save, start, end)
    field = velocity(process, predict)
    x, saved, num_evaluations = solve(
        process.schedule, lambda t, x: field(x, t), dtypes.as_float(x), start, end, rtol, atol, max_steps, save
    )
    return Transport(x, saved, num_evaluations)


def encode(
    process: Gaussian,
    predict: Predict,
    x0: Float[Array, "batch *event"],
    start: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, "batch *event"]:
    """Data -> latents at time 1. They follow `process.prior` as far as the data follows the model.

    Args:
        start: the time of the data. None is `sample_from`, or the first time of a discrete chain if that is later.
            `decode` to the same time inverts this.

    Raises:
        InputError: as `transport`.
    """
    start = earliest(process.schedule, sample_from(process.schedule)) if start is None else start
    return transport(process, predict, x0, start, 1.0, rtol, atol, max_steps).x


def decode(
    process: Gaussian,
    predict: Predict,
    latents: Float[Array, "batch *event"],
    end: ArrayLike | None = None,
    denoise: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, "batch *event"]:
    """Latents at time 1 -> data. Latents drawn from `process.prior` give samples.

    Args:
        end: where to stop; None as in `encode`.
        denoise: replace the x at `end` by the x_0 predicted from it. This removes the noise left at `end`; the result
            is then no longer the inverse of `encode`.

    Raises:
        InputError: as `transport`.
    """
    end = earliest(process.schedule, sample_from(process.schedule)) if end is None else end
    x = transport(process, predict, latents, 1.0, end, rtol, atol, max_steps).x
    if not denoise:
        return x

    def estimate(x: Array, end: Array) -> Array:
        t = jnp.broadcast_to(end, x.shape[:1])
        return convert(predict(x, t), "x0", process, x, t).astype(x.dtype)

    return eager.once(estimate, x, jnp.asarray(end, x.dtype))


def interpolate_latents(
    a: Float[Array, " *event"], b: Float[Array, " *event"], weights: Float[Array, " num"]
) -> Float[Array, "num *event"]:
    """From a (weight 0) to b (weight 1) along the great circle. The norm of a plain mean of latents would be too small.

        [sin((1 - w) θ) a + sin(w θ) b] / sin θ,   θ the angle between a and b     (Song et al. 2021b, DDIM, eq. 67)

    Where a and b point the same way this is (1 - w) a + w b; where they point opposite ways it is of no use.
    """
    dtype = dtypes.floating(a, b)
    a, b, w = (jnp.asarray(x, dtype) for x in (a, b, weights))
    w = w.reshape(-1, *(1,) * a.ndim)
    # Twice the arctangent of half-chords, which unlike the arccosine keeps its digits where the angle is small.
    u, v = a / jnp.linalg.norm(a.ravel()), b / jnp.linalg.norm(b.ravel())
    angle = 2.0 * jnp.arctan2(jnp.linalg.norm((u - v).ravel()), jnp.linalg.norm((u + v).ravel()))
    # sin(w θ)/sin θ as a quotient of sinc's: w at θ = 0.
    share = w * jnp.sinc(w * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)
    rest = (1 - w) * jnp.sinc((1 - w) * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)
    return rest * a + share * b


def earliest(schedule: Schedule, t: float) -> float:
    """t, or the first time that a network has seen if that is later: a chain's first time, sigma_min's for `edm`."""
    if isinstance(schedule, Discrete):
        return max(t, 1.0 / schedule.num_steps)
    if isinstance(schedule, EDM):
        low, high = known(schedule.sigma_min), known(schedule.sigma_max)
        return t if low is None or high is None else max(t, float(low / high))
    return t


def check_interval(process: Gaussian, start: ArrayLike, end: ArrayLike) -> None:
    """Raises InputError unless `start` and `end`, where they are concrete, are two different times of the equation."""
    noisy = isinstance(process.schedule, VE)
    for name, t in (("start", start), ("end", end)):
        if jnp.shape(t) != ():
            raise InputError(f"{name} must be one time for the whole batch, not of shape {jnp.shape(t)}")
        value = known(t)
        if value is not None and not (0 < value <= 1 or (noisy and value == 0)):
            raise InputError(f"{name}={value} must be a time in (0, 1], or 0 if the schedule is ve")
    if known(start) is not None and known(start) == known(end):
        raise InputError(f"start and end are the same time, {start}: give the flow somewhere to go")


def _check_save(save: Array, start: ArrayLike, end: ArrayLike) -> None:
    if jnp.ndim(save) != 1 or jnp.size(save) == 0:
        raise InputError(f"save must be a vector of times, not of shape {jnp.shape(save)}")
    path = [known(t) for t in (start, save, end)]
    if any(part is None for part in path):
        return
    steps = np.diff(np.concatenate([np.ravel(np.float32(part)) for part in path]))
    if not ((steps >= 0).all() or (steps <= 0).all()):
        raise InputError(f"save must lead from start={start} to end={end} without turning back, not be {path[1]}")
