"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t in [0, 1].

A variance-preserving schedule is one increasing function, the integrated rate L(t) = -log alpha_bar(t), and

    alpha = exp(-L/2),   sigma = sqrt(-expm1(-L)),   log_snr = log(alpha²/sigma²) = -log(expm1(L)),

none of which cancels when L is small. (In float32, sqrt(1 - exp(-L)) is 2.4% off at L = 1e-5.) Where L = 0, sigma is 0
and log_snr is infinite whatever the rate: their gradients to the schedule are 0 there. (So are those to t, in place of
infinity.)

Three are the marginals of stochastic differential equations (Song et al. 2021, section 3.4 and appendix B): `vp`;
`sub_vp`, alpha = exp(-L/2) and sigma = 1 - exp(-L), without the root; and `ve`, alpha = 1 and sigma geometric in t.

A discrete chain β_1..β_T (Ho et al. 2020) sits on the grid t = i/T with L(i/T) = -Σ_{j≤i} log(1 - β_j). Between two
grid points L is linear in t: the diffusion whose rate is constant within a step. Tables are summed in float64.

A schedule is evaluated at concrete or traced times. Concrete times outside [0, 1] raise an InputError.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import pytrees, registry
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError


class Schedule(Protocol):
    """alpha, sigma and log_snr as functions of t in [0, 1], elementwise, and the standard deviation of the prior."""

    @property
    def prior_std(self) -> ArrayLike: ...
    def alpha(self, t: ArrayLike) -> Array: ...
    def sigma(self, t: ArrayLike) -> Array: ...
    def log_snr(self, t: ArrayLike) -> Array: ...


S = TypeVar("S", bound="Schedule")


class VariancePreserving:
    """alpha² + sigma² = 1, everything from `integrated_rate(t)`, L."""

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


@pytrees.register
@dataclass(frozen=True)
class Discrete(VariancePreserving):
    """A chain of T steps. `table` is L(i/T), i = 0..T; `betas` are β_1..β_T."""

    betas: Float[Array, " num_steps"]
    table: Float[Array, " num_steps+1"]

    @property
    def num_steps(self) -> int:
        return self.table.shape[0] - 1

    @property
    def times(self) -> Float[Array, " num_times"]:
        """The grid i/T, i = 0..T, ascending from 0 to 1."""
        return jnp.arange(self.num_steps + 1, dtype=self.table.dtype) / self.num_steps

    def integrated_rate(self, t: ArrayLike) -> Array:
        check_times("t", t)
        t = as_float(t)
        position = t.astype(self.table.dtype) * self.num_steps
        nearest = jnp.round(position)
        # i/T in floating point, times T, is i up to a rounding: on the grid read the table, not a neighbour's slope.
        rounding = 2 * max(float(jnp.finfo(a.dtype).eps) for a in (t, position)) * nearest
        snap = jnp.where(jnp.abs(position - nearest) <= rounding, nearest - position, 0.0)
        position = position + jax.lax.stop_gradient(snap)  # a plain jnp.round would make d/dt zero on the grid
        below = jnp.clip(jnp.floor(position), 0, self.num_steps - 1)
        index = below.astype(int)
        start, slope = self.table[index], self.table[index + 1] - self.table[index]
        # A last beta of 1 makes the last slope infinite, and its product with 0 would be NaN.
        slope = jnp.where((position == below) & jnp.isinf(slope), 0.0, slope)
        return start + (position - below) * slope


@pytrees.register
@dataclass(frozen=True)
class VP(VariancePreserving):
    """dx = -½β(t)x dt + √β(t) dw with β(t) linear from `beta_min` to `beta_max` (Song et al. 2021, eq. 11)."""

    beta_min: ArrayLike
    beta_max: ArrayLike

    def integrated_rate(self, t: ArrayLike) -> Array:
        check_times("t", t)
        t = as_float(t)
        low, high = (jnp.asarray(beta, t.dtype) for beta in (self.beta_min, self.beta_max))
        return t * low + 0.5 * t * t * (high - low)


@pytrees.register
@dataclass(frozen=True)
class SubVP(VP):
    """dx = -½β(t)x dt + √(β(t)(1 - exp(-2L))) dw: a mean as VP's, and less noise (Song et al. 2021, eq. 28)."""

    def sigma(self, t: ArrayLike) -> Array:
        return -jnp.expm1(-self.integrated_rate(t))

    def log_snr(self, t: ArrayLike) -> Array:
        rate = self.integrated_rate(t)
        return -rate - 2.0 * log(-jnp.expm1(-rate))


@pytrees.register
@dataclass(frozen=True)
class VE:
    """alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t (Song et al. 2021, eq. 30).

    At t = 0 there is noise of sigma_min left; L equidistant times are the geometric noise levels of Song & Ermon 2019.
    """

    sigma_min: ArrayLike
    sigma_max: ArrayLike

    @property
    def prior_std(self) -> ArrayLike:
        return self.sigma_max

    def alpha(self, t: ArrayLike) -> Array:
        check_times("t", t)
        return jnp.ones_like(as_float(t))

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.exp(-0.5 * self.log_snr(t))

    def log_snr(self, t: ArrayLike) -> Array:
        check_times("t", t)
        t = as_float(t)
        low, high = (jnp.log(jnp.asarray(sigma, t.dtype)) for sigma in (self.sigma_min, self.sigma_max))
        return -2.0 * ((1.0 - t) * low + t * high)


def from_betas(betas: ArrayLike, end: bool = False) -> Discrete:
    """The chain whose x_t at t = i/T has alpha_bar = prod(1 - betas[:i]).

    Args:
        betas: (T,), each in (0, 1). Concrete values are checked and summed in float64; traced values (learned
            betas) are summed in their own precision and stay differentiable.
        end: whether the last beta may be 1, so that nothing is left of x_0. Bits can bear it; a Gaussian process
            cannot tell x_0 from eps there.

    Raises:
        InputError: if betas is not a vector of numbers in (0, 1).
    """
    if isinstance(betas, jax.core.Tracer):
        betas = as_float(betas)
        rates = -jnp.log1p(-betas)
        return Discrete(betas, jnp.concatenate([jnp.zeros(1, rates.dtype), jnp.cumsum(rates)]))
    values = np.asarray(betas, np.float64)
    inner = values[:-1] if end and values.ndim == 1 and values[-1:] == 1 else values
    if values.ndim != 1 or values.size == 0 or not ((inner > 0) & (inner < 1)).all():
        raise InputError(f"betas must be a non-empty vector of numbers in (0, 1), not {_brief(values)}")
    with np.errstate(divide="ignore"):
        table = np.concatenate([[0.0], np.cumsum(-np.log1p(-values))])
    dtype = floating(betas)
    return Discrete(jnp.asarray(values, dtype), jnp.asarray(table, dtype))


def linear(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Discrete:
    """betas equidistant from `beta_start` to `beta_end` (Ho et al. 2020; alpha_bar_T = 4.0358e-5 as it stands)."""
    return from_betas(np.linspace(beta_start, beta_end, _steps(num_steps)))


def cosine(num_steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Discrete:
    """alpha_bar ∝ cos²((t + s)/(1 + s) · π/2), betas clipped at `max_beta` (Nichol & Dhariwal 2021, eq. 17)."""
    t = np.arange(_steps(num_steps) + 1) / num_steps
    return _from_alpha_bar(np.cos((t + s) / (1 + s) * np.pi / 2) ** 2, max_beta)


def sigmoid(
    num_steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Discrete:
    """alpha_bar ∝ sigmoid(-(start + t (end - start))/τ), moved to fall from 1 to 0 (Jabri et al. 2023, appendix B)."""
    t = np.arange(_steps(num_steps) + 1) / num_steps
    fall = 1 / (1 + np.exp((start + t * (end - start)) / tau))
    return _from_alpha_bar((fall - fall[-1]) / (fall[0] - fall[-1]), max_beta)


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> VP:
    """The continuous-time limit of `linear` (Song et al. 2021, appendix C)."""
    return VP(beta_min, beta_max)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SubVP:
    """The schedule of the sub-VP SDE (Song et al. 2021, appendix B)."""
    return SubVP(beta_min, beta_max)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> VE:
    """The schedule of the VE SDE, and of NCSN's noise levels.

    Raises:
        InputError: unless 0 < sigma_min < sigma_max < inf.
    """
    concrete = not (isinstance(sigma_min, jax.core.Tracer) or isinstance(sigma_max, jax.core.Tracer))
    if concrete and not 0 < float(sigma_min) < float(sigma_max) < np.inf:
        raise InputError(f"sigma_min={sigma_min} must be positive and less than sigma_max={sigma_max}")
    return VE(sigma_min, sigma_max)


CHAINS: dict[str, Callable[..., Discrete]] = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid}
CONTINUOUS: dict[str, Callable[..., Schedule]] = {"vp": vp, "sub_vp": sub_vp, "ve": ve}
# A view of both: what is added to one is here, too.
SCHEDULES: Mapping[str, Callable[..., Schedule]] = ChainMap[str, Callable[..., Any]](CONTINUOUS, CHAINS)


def make(name: str, settings: Mapping[str, Any], among: Mapping[str, Callable[..., S]], field: str = "schedule") -> S:
    """The schedule that `name` calls, with those of `settings` that it takes, e.g. a section of a configuration.

    Args:
        among: the schedules to choose from: `SCHEDULES`, or its parts `CHAINS`, which are discrete, and `CONTINUOUS`.
        field: what the error calls the name.

    Raises:
        InputError: on an unknown name, or a setting out of range.
    """
    return registry.build(registry.choose(field, name, among), settings=settings)


def broadcast_to(t: ArrayLike, x: Array) -> Array:
    """t, of shape () or of the leading axes of x, with axes of size 1 added behind until it broadcasts against x.

    Numbers take the floating type of x: a coefficient never changes the type of what it multiplies. Masks stay bool.
    """
    t = jnp.asarray(t)
    t = t if t.dtype == bool else t.astype(floating(x))
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def sqrt(u: Array) -> Array:
    """√u, u ≥ 0; at u = 0 a constant. The root's own gradient there is infinite, and its product with 0 is NaN."""
    return jnp.where(u == 0, 0.0, jnp.sqrt(jnp.where(u == 0, 1.0, u)))


def log(u: Array) -> Array:
    """log u, u ≥ 0; at u = 0 a constant, as `sqrt`."""
    return jnp.where(u == 0, -jnp.inf, jnp.log(jnp.where(u == 0, 1.0, u)))


def _from_alpha_bar(alpha_bar: np.ndarray, max_beta: float) -> Discrete:
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def _steps(num_steps: int) -> int:
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, not {num_steps}")
    return num_steps


def _brief(values: np.ndarray) -> str:
    return np.array2string(values, threshold=6, edgeitems=2, precision=4)


def check_times(name: str, t: ArrayLike) -> None:
    """Raises InputError if concrete times are not all in [0, 1], as steps 0 .. 1000 given by habit are not."""
    if isinstance(t, jax.core.Tracer):
        return
    values = np.asarray(t)  # numpy, because jnp would trace the comparison of even concrete times under jit
    if not ((values >= 0) & (values <= 1 + 1e-6)).all():  # sums of steps may round above 1
        raise InputError(f"{name} must be in [0, 1], not {_brief(values)}: the time of step i of T is i/T")
