"""Schedules without steps: the marginals of stochastic differential equations, and paths between data and noise.

vp        alpha = exp(-L/2), sigma = √(1 - exp(-L))            (Song et al. 2021, section 3.4 and appendix B)
sub_vp    alpha = exp(-L/2), sigma = 1 - exp(-L)               (the same)
ve        alpha = 1, sigma geometric in t                      (the same)
edm       alpha = 1, sigma = sigma_max t                       (Karras et al. 2022, table 1)
straight  alpha = 1 - t, sigma = t                             (Lipman et al. 2023; Liu et al. 2023)
log_linear  alpha² = 1 - t, sigma² = t                        (Lou et al. 2024; Sahoo et al. 2024)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import pytrees
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.schedules.base import VariancePreserving, check_times, log


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
    """dx = -½β(t)x dt + √(β(t)(1 - exp(-2L))) dw: the mean of VP, with less noise (Song et al. 2021, eq. 28)."""

    def sigma(self, t: ArrayLike) -> Array:
        return -jnp.expm1(-self.integrated_rate(t))

    def log_snr(self, t: ArrayLike) -> Array:
        rate = self.integrated_rate(t)
        return -rate - 2.0 * log(-jnp.expm1(-rate))


@pytrees.register
@dataclass(frozen=True)
class VE:
    """alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t (Song et al. 2021, eq. 30).

    Noise of sigma_min is left at t = 0. L equidistant times give the geometric noise levels of Song & Ermon 2019.
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


@pytrees.register
@dataclass(frozen=True)
class EDM:
    """alpha = 1, sigma = sigma_max t (Karras et al. 2022, table 1, with their time divided by its maximum).

    `sigma_min` is the least noise level that a sampler visits before 0 (`samplers.noise_levels`).
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
        check_times("t", t)
        t = as_float(t)
        return jnp.asarray(self.sigma_max, t.dtype) * t

    def log_snr(self, t: ArrayLike) -> Array:
        return -2.0 * log(self.sigma(t))


@pytrees.register
@dataclass(frozen=True)
class Straight:
    """alpha = 1 - t, sigma = t: a straight line from data to pure noise (Lipman et al. 2023; Liu et al. 2023)."""

    prior_std = 1.0
    no_signal_at_end = True

    def alpha(self, t: ArrayLike) -> Array:
        check_times("t", t)
        return 1.0 - as_float(t)

    def sigma(self, t: ArrayLike) -> Array:
        check_times("t", t)
        return as_float(t)

    def log_snr(self, t: ArrayLike) -> Array:
        """+inf at t = 0, -inf at t = 1."""
        return 2.0 * (log(self.alpha(t)) - log(self.sigma(t)))


@pytrees.register
@dataclass(frozen=True)
class LogLinear(VariancePreserving):
    """alpha² = 1 - t: of the places of a masked process a share of t is masked (Sahoo et al. 2024, "log-linear")."""

    no_signal_at_end = True

    def integrated_rate(self, t: ArrayLike) -> Array:
        check_times("t", t)
        return -log(1.0 - as_float(t))


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
    _check_levels(sigma_min, sigma_max)
    return VE(sigma_min, sigma_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """The schedule of preconditioned networks, `predictions.preconditioned`.

    Raises:
        InputError: as `ve`.
    """
    _check_levels(sigma_min, sigma_max)
    return EDM(sigma_min, sigma_max)


def straight() -> Straight:
    """alpha = 1 - t, sigma = t: the schedule of flow matching. Its velocity is eps - x_0."""
    return Straight()


def log_linear() -> LogLinear:
    """alpha_bar = 1 - t: the schedule of masked diffusion."""
    return LogLinear()


def _check_levels(sigma_min: float, sigma_max: float) -> None:
    concrete = not (isinstance(sigma_min, jax.core.Tracer) or isinstance(sigma_max, jax.core.Tracer))
    if concrete and not 0 < float(sigma_min) < float(sigma_max) < np.inf:
        raise InputError(f"sigma_min={sigma_min} must be positive and less than sigma_max={sigma_max}")
