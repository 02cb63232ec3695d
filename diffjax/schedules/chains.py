"""Discrete chains β_1..β_T (Ho et al. 2020) on the grid t = i/T, with L(i/T) = -Σ_{j≤i} log(1 - β_j).

Between two grid points L is linear in t: the diffusion whose rate is constant within a step. Tables are summed in
float64. A chain whose β_T is 1 ends without signal: alpha(1) = 0, and x_1 is pure noise (Lin et al. 2024). In its last
step alpha falls linearly.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import pytrees
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.schedules.base import VariancePreserving, brief, check_times, log, sqrt


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

    @property
    def no_signal_at_end(self) -> bool:
        """Whether alpha(1) is known to be 0."""
        return not isinstance(self.table, jax.core.Tracer) and bool(np.isinf(np.asarray(self.table)[-1]))

    def integrated_rate(self, t: ArrayLike) -> Array:
        rate, left = self._parts(t)
        return rate - 2.0 * log(left)

    def alpha(self, t: ArrayLike) -> Array:
        rate, left = self._parts(t)
        return jnp.exp(-0.5 * rate) * left

    def sigma(self, t: ArrayLike) -> Array:
        rate, left = self._parts(t)
        alpha = jnp.exp(-0.5 * rate) * left
        return sqrt(jnp.where(left < 1, (1 - alpha) * (1 + alpha), -jnp.expm1(-rate)))

    def _parts(self, t: ArrayLike) -> tuple[Array, Array]:
        """R and u with alpha = exp(-R/2) u. u is 1, but in a step to alpha = 0 it falls linearly from 1 to 0."""
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
        start, end, part = self.table[index], self.table[index + 1], position - below
        last = jnp.isinf(end)
        rate = start + part * (jnp.where(last, start, end) - start)
        return rate, jnp.where(last, 1 - part, 1.0).astype(rate.dtype)


def from_betas(betas: ArrayLike) -> Discrete:
    """The chain whose x_t at t = i/T has alpha_bar = prod(1 - betas[:i]).

    Args:
        betas: (T,), each in (0, 1); the last may be 1. Concrete values are checked and summed in float64; traced values
            (learned betas) are summed in their own precision and stay differentiable.

    Raises:
        InputError: if betas is not such a vector.
    """
    if isinstance(betas, jax.core.Tracer):
        betas = as_float(betas)
        rates = -jnp.log1p(-betas)
        return Discrete(betas, jnp.concatenate([jnp.zeros(1, rates.dtype), jnp.cumsum(rates)]))
    values = np.asarray(betas, np.float64)
    inner = values[:-1] if values.ndim == 1 and (values[-1:] == 1).any() else values
    if values.ndim != 1 or values.size == 0 or not ((inner > 0) & (inner < 1)).all():
        raise InputError(
            f"betas must be a non-empty vector of numbers in (0, 1), of which the last may be 1, not {brief(values)}"
        )
    with np.errstate(divide="ignore"):
        table = np.concatenate([[0.0], np.cumsum(-np.log1p(-values))])
    dtype = floating(betas)
    return Discrete(jnp.asarray(values, dtype), jnp.asarray(table, dtype))


def zero_terminal_snr(schedule: Discrete) -> Discrete:
    """The chain with alpha moved and scaled so that alpha_T = 0 and alpha_1 stays (Lin et al. 2024, algorithm 1).

        alpha'_i = (alpha_i - alpha_T) alpha_1/(alpha_1 - alpha_T)

    x_1 is then pure noise, where samplers start. A prediction of eps says nothing about x_0 there: predict v or x0.

    Raises:
        InputError: if the schedule is not a chain of at least 2 steps, or is traced.
    """
    if not isinstance(schedule, Discrete) or isinstance(schedule.table, jax.core.Tracer) or schedule.num_steps < 2:
        raise InputError("zero_terminal_snr needs a concrete chain of at least 2 steps, such as schedules.linear()")
    alpha = np.exp(-0.5 * np.asarray(schedule.table, np.float64))
    alpha[1:] = (alpha[1:] - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    return from_betas(1 - (alpha[1:] / alpha[:-1]) ** 2)


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


def _from_alpha_bar(alpha_bar: np.ndarray, max_beta: float) -> Discrete:
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def _steps(num_steps: int) -> int:
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, not {num_steps}")
    return num_steps
