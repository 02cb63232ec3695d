"""The interface of schedules, x_t = alpha(t) x_0 + sigma(t) eps with t in [0, 1], and helpers to apply them to arrays.

A variance-preserving schedule is one increasing function, the integrated rate L(t) = -log alpha_bar(t), and

    alpha = exp(-L/2),   sigma = sqrt(-expm1(-L)),   log_snr = log(alpha²/sigma²) = -log(expm1(L)).

None of these cancels when L is small. (In float32, sqrt(1 - exp(-L)) is 2.4% off at L = 1e-5.) Where L = 0, sigma is 0
and log_snr is infinite for any rate, so their gradients with respect to the schedule are 0 there. (Those with respect
to t are also 0, instead of infinite.)
"""

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError


class Schedule(Protocol):
    """alpha, sigma and log_snr as functions of t in [0, 1], elementwise, and the standard deviation of the prior."""

    @property
    def prior_std(self) -> ArrayLike: ...
    def alpha(self, t: ArrayLike) -> Array: ...
    def sigma(self, t: ArrayLike) -> Array: ...
    def log_snr(self, t: ArrayLike) -> Array: ...


class VariancePreserving:
    """alpha² + sigma² = 1. Everything follows from L, `integrated_rate(t)`."""

    prior_std = 1.0

    def integrated_rate(self, t: ArrayLike) -> Array:
        raise NotImplementedError

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.exp(-0.5 * self.integrated_rate(t))

    def sigma(self, t: ArrayLike) -> Array:
        return sqrt(-jnp.expm1(-self.integrated_rate(t)))

    def log_snr(self, t: ArrayLike) -> Array:
        """log(alpha²/sigma²): +inf at t = 0."""
        rate = self.integrated_rate(t)
        # log(expm1(L)) without overflow for large L: L + log(1 - exp(-L)).
        return -rate - log(-jnp.expm1(-rate))


def broadcast_to(t: ArrayLike, x: Array) -> Array:
    """t, of shape () or of the leading axes of x, with axes of size 1 added behind until it broadcasts against x.

    Numbers take the floating type of x: a coefficient never changes the type of what it multiplies. Masks stay bool.
    """
    t = jnp.asarray(t)
    t = t if t.dtype == bool else t.astype(floating(x))
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def sqrt(u: Array) -> Array:
    """√u for u ≥ 0, with gradient 0 at u = 0. The true gradient there is infinite, and its product with 0 is NaN."""
    return jnp.where(u == 0, 0.0, jnp.sqrt(jnp.where(u == 0, 1.0, u)))


def log(u: Array) -> Array:
    """log u for u ≥ 0, with gradient 0 at u = 0, as `sqrt`."""
    return jnp.where(u == 0, -jnp.inf, jnp.log(jnp.where(u == 0, 1.0, u)))


def check_times(name: str, t: ArrayLike) -> None:
    """Raises InputError if concrete times are not all in [0, 1], for example if they are steps 0 .. 1000."""
    if isinstance(t, jax.core.Tracer):
        return
    values = np.asarray(t)  # numpy, because jnp would trace the comparison of even concrete times under jit
    if not ((values >= 0) & (values <= 1 + 1e-6)).all():  # sums of steps may round above 1
        raise InputError(f"{name} must be in [0, 1], not {brief(values)}: the time of step i of T is i/T")


def brief(values: np.ndarray) -> str:
    """A vector as short text, for an error message."""
    return np.array2string(values, threshold=6, edgeitems=2, precision=4)


def no_signal_at_end(schedule: Schedule) -> bool:
    """Whether alpha(1) is known to be 0: x_1 is pure noise, and log_snr(1) is -inf."""
    return bool(getattr(schedule, "no_signal_at_end", False))


def before_end(schedule: Schedule, t: ArrayLike) -> Array:
    """t, but if alpha(1) is known to be 0, at most the time at which alpha/sigma = ε^(1/4).

    Up to that time x_t says enough about x_0. The ratio is 0.019 in float32 and 1.2e-4 in float64. A quantity computed
    by (sigma²/alpha) ∂x̂_0/∂x_t has no value at t = 1. The value here is its limit up to an error of about this ratio,
    and up to a rounding error of ε over the ratio's square.
    """
    t = as_float(t)
    if not no_signal_at_end(schedule):
        return t
    last = time_of(schedule, jnp.asarray(0.5 * np.log(jnp.finfo(t.dtype).eps), t.dtype))
    return jnp.minimum(t, last.astype(t.dtype))


def time_of(schedule: Schedule, log_snr: ArrayLike) -> Array:
    """The t in (0, 1] of a log-SNR, elementwise, by bisection of log t.

    It is 1 for a log-SNR below log_snr(1), and at least 1e-8. It is exact to the rounding of t, and not differentiable.
    """
    target = jax.lax.stop_gradient(as_float(log_snr))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        later = schedule.log_snr(jnp.exp(middle)).astype(target.dtype) > target  # the time sought is later
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    ends = jnp.full_like(target, np.log(1e-8)), jnp.zeros_like(target)
    return jnp.exp(jax.lax.fori_loop(0, 40, halve, ends)[1])
