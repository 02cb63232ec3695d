"""Categorical processes: classes 0 .. K - 1 that jump to others, in closed form or by matrices.

See `diffjax.processes` for the formulas. Arrays of classes are integers, or floats that are whole numbers.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from diffjax import distributions, pytrees
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.predictions import Prediction
from diffjax.processes import matrices
from diffjax.processes.base import Variance
from diffjax.schedules import VariancePreserving, from_betas, log, no_signal_at_end


class Categorical(ABC):
    """What the two forms of the process share. All probabilities are logarithms over a last axis of states.

    schedule: its integrated rate L(t) is the mean number of jumps up to t; exp(-L) = alpha_bar of the papers.
    law: (states,), the stationary law of the jumps and the prior.
    num_classes: K. A masked process has one state more, the mask, which is K.
    """

    schedule: VariancePreserving
    law: Float[Array, " states"]
    num_classes: int

    @property
    def num_states(self) -> int:
        return self.law.shape[0]

    @property
    def masked(self) -> bool:
        return self.num_states > self.num_classes

    @abstractmethod
    def rows(self, x: Array, rate: Array) -> Array:
        """log q(x_t = · | x_s = x), (*shape, states), where `rate` = L_t - L_s broadcasts against x."""

    @abstractmethod
    def columns(self, x: Array, rate: Array) -> Array:
        """log q(x_t = x | x_s = ·), (*shape, states)."""

    @abstractmethod
    def pushed(self, log_w: Array, rate: Array) -> Array:
        """log Σ_a w_a q(x_t = · | x_s = a) of log w (*shape, states)."""

    @abstractmethod
    def jumps_to(self, x: Array) -> Array:
        """M(·, x): the probabilities that a jump from each state lands at x, (*shape, states)."""

    def prior(self, shape: tuple[int, ...]) -> distributions.Categorical:
        """p(x_1) = π at every place."""
        return distributions.Categorical(jnp.broadcast_to(log(as_float(self.law)), (*shape, self.num_states)))

    def marginal(self, x0: Array, t: ArrayLike) -> distributions.Categorical:
        """q(x_t | x_0)."""
        x0 = classes(x0)
        return distributions.Categorical(self.rows(x0, self._rate(x0, 0.0, t)))

    def transition(self, xs: Array, s: ArrayLike, t: ArrayLike) -> distributions.Categorical:
        """q(x_t | x_s)."""
        xs = classes(xs)
        return distributions.Categorical(self.rows(xs, self._rate(xs, s, t)))

    def posterior(self, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike) -> distributions.Categorical:
        """q(x_s | x_t, x_0). At s = 0 it is the point mass on x_0."""
        x0, xt = classes(x0), classes(xt)
        return distributions.Categorical(self.rows(x0, self._rate(x0, 0.0, s)) + self.columns(xt, self._rate(xt, s, t)))

    def reverse(
        self, prediction: Prediction, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance = "posterior"
    ) -> distributions.Categorical:
        """p(x_s | x_t), the mixture of the posteriors over the predicted x_0; at s = 0 the prediction itself.

        The prediction is of kind "logits", of shape (*shape, K). Classes from which x_t cannot come get probability 0,
        so a masked process keeps what is not masked. There is no variance to choose.
        """
        if variance != "posterior":
            raise InputError(f"a categorical process has no variance {variance!r}: leave it at 'posterior'")
        xt = classes(xt)
        log_w = self.ratios(prediction, xt, t)
        back = self.columns(xt, self._rate(xt, s, t))
        return distributions.Categorical(back + self.pushed(log_w, self._rate(xt, 0.0, s)))

    def ratios(self, prediction: Prediction, xt: Array, t: ArrayLike) -> Array:
        """log p(x_0 = · | x_t) - log q(x_t | x_0 = ·), (*shape, states); -inf where q is 0."""
        xt = classes(xt)
        likelihood = self.columns(xt, self._rate(xt, 0.0, t))
        possible, likelihood = split(likelihood)
        log_p = self.beliefs(prediction, xt, t)
        log_p = jnp.pad(log_p, [(0, 0)] * xt.ndim + [(0, self.num_states - self.num_classes)])
        possible = possible & (jnp.arange(self.num_states) < self.num_classes)
        return jnp.where(possible, log_p - likelihood, -jnp.inf)

    def beliefs(self, prediction: Prediction, xt: Array, t: ArrayLike) -> Array:
        """log p(x_0 = · | x_t), (*shape, K), with -inf for classes from which x_t cannot come."""
        xt = classes(xt)
        if prediction.kind != "logits" or jnp.shape(prediction.value) != (*xt.shape, self.num_classes):
            raise InputError(
                f"a categorical process of {self.num_classes} classes needs a prediction of kind 'logits' and shape"
                f" {(*xt.shape, self.num_classes)}, not {prediction.kind!r} and {jnp.shape(prediction.value)}"
            )
        possible, _ = split(self.columns(xt, self._rate(xt, 0.0, t))[..., : self.num_classes])
        value = jnp.where(possible, as_float(prediction.value), -jnp.inf)
        return jax.nn.log_softmax(value, axis=-1)

    def evidence(self, xt: Array, t: ArrayLike) -> Array:
        """log q(x_t | x_0 = ·), (*shape, K), what x_t says of x_0 at its own place; 0 where that is impossible."""
        xt = classes(xt)
        return split(self.columns(xt, self._rate(xt, 0.0, t))[..., : self.num_classes])[1]

    def _rate(self, x: Array, s: ArrayLike, t: ArrayLike) -> Array:
        """L_t - L_s, which broadcasts against x."""
        dtype = floating(self.law, s, t)
        later = self.schedule.integrated_rate(jnp.asarray(t, dtype))
        if isinstance(s, float) and s == 0:
            rate = later
        else:
            rate = later - self.schedule.integrated_rate(jnp.asarray(s, dtype))
        return rate.reshape(rate.shape + (1,) * (x.ndim - rate.ndim)).astype(dtype)


@pytrees.register
@dataclass(frozen=True)
class Redrawn(Categorical):
    """A jump draws the class anew from the law: Q = k I + (1 - k) 1 πᵀ. All in O(states), without matrices."""

    schedule: VariancePreserving
    law: Float[Array, " states"]
    num_classes: int = field(metadata={"static": True})

    def rows(self, x: Array, rate: Array) -> Array:
        k, one_minus_k, law = _kept(rate, self.law)
        return log(k * self._is(x, law.dtype) + one_minus_k * law)

    def columns(self, x: Array, rate: Array) -> Array:
        k, one_minus_k, law = _kept(rate, self.law)
        there = self._is(x, law.dtype)
        return log(k * there + one_minus_k * (there * law).sum(-1, keepdims=True))

    def pushed(self, log_w: Array, rate: Array) -> Array:
        k, one_minus_k, law = _kept(rate, self.law)
        anew = log(one_minus_k * law) + log_sum(log_w)[..., None]
        return _log_add(log(k) + log_w, anew)

    def jumps_to(self, x: Array) -> Array:
        law = as_float(self.law)
        there = (self._is(x, law.dtype) * law).sum(-1, keepdims=True)
        return jnp.broadcast_to(there, (*x.shape, self.num_states))

    def _is(self, x: Array, dtype: Any) -> Array:
        return (x[..., None] == jnp.arange(self.num_states)).astype(dtype)


@pytrees.register
@dataclass(frozen=True)
class Jumping(Categorical):
    """Jumps by any matrix M (states, states): Q = exp((L_t - L_s)(M - I)), a matrix for each example."""

    schedule: VariancePreserving
    law: Float[Array, " states"]
    matrix: Float[Array, "states states"]
    num_classes: int = field(metadata={"static": True})

    def rows(self, x: Array, rate: Array) -> Array:
        q = matrices.exponential(as_float(self.matrix), rate)
        return log((self._is(x, q.dtype)[..., None] * q).sum(-2))

    def columns(self, x: Array, rate: Array) -> Array:
        q = matrices.exponential(as_float(self.matrix), rate)
        return log((self._is(x, q.dtype)[..., None, :] * q).sum(-1))

    def pushed(self, log_w: Array, rate: Array) -> Array:
        return log_sum(log_w[..., None] + log(matrices.exponential(as_float(self.matrix), rate)), axis=-2)

    def jumps_to(self, x: Array) -> Array:
        matrix = as_float(self.matrix)
        return (self._is(x, matrix.dtype)[..., None, :] * matrix).sum(-1)

    def _is(self, x: Array, dtype: Any) -> Array:
        return (x[..., None] == jnp.arange(self.num_states)).astype(dtype)


def categorical(
    schedule: VariancePreserving | ArrayLike,
    num_classes: int,
    kind: Literal["uniform", "masked", "gaussian"] | ArrayLike = "uniform",
    width: float = 1.0,
) -> Categorical:
    """The categorical process of a schedule, or of betas, on `num_classes` classes.

    Args:
        kind: what a jump does. "uniform": draws any class. "masked": goes to the mask, a further state, and stays.
            "gaussian": goes to a near class (`gaussian_matrix`). A law (K,): draws from it. A row-stochastic matrix
            (K, K): any other jump; `metropolis` makes one with a given stationary law.
        width: of "gaussian", the standard deviation of a jump in classes.

    Raises:
        InputError: if there are fewer than 2 classes, a law or matrix is none of that many classes, or a masked
            process has a schedule that does not mask all in the end.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise InputError(f"num_classes={num_classes!r} must be an integer of at least 2: one class is always known")
    if not isinstance(schedule, VariancePreserving):
        schedule = from_betas(schedule)
    if isinstance(kind, str):
        return _named(schedule, num_classes, kind, width)
    values = np.asarray(kind, np.float64)
    if values.shape == (num_classes,):
        if not (values > 0).all() or not np.isclose(values.sum(), 1.0, atol=1e-5):
            raise InputError(f"the law of a jump must be positive numbers whose sum is 1, not {values}")
        return Redrawn(schedule, jnp.asarray(values, float), num_classes)
    if values.shape != (num_classes, num_classes):
        shapes = f"{(num_classes,)} or {(num_classes, num_classes)}"
        raise InputError(f"kind must be a name, or a law or matrix of shape {shapes}, not of shape {values.shape}")
    law = matrices.stationary(values)
    return Jumping(schedule, jnp.asarray(law, float), jnp.asarray(values, float), num_classes)


def _named(schedule: VariancePreserving, num_classes: int, kind: str, width: float) -> Categorical:
    if kind == "uniform":
        return Redrawn(schedule, jnp.full(num_classes, 1.0 / num_classes), num_classes)
    if kind == "gaussian":
        return categorical(schedule, num_classes, matrices.gaussian_matrix(num_classes, width))
    if kind != "masked":
        raise InputError(f"kind must be 'uniform', 'masked', 'gaussian', a law or a matrix, not {kind!r}")
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(schedule))
    if not traced and not no_signal_at_end(schedule):
        raise InputError(
            "a masked process needs a schedule that masks everything in the end, with alpha(1) = 0: use"
            " schedules.log_linear(), or schedules.zero_terminal_snr of a chain"
        )
    return Redrawn(schedule, jnp.zeros(num_classes + 1).at[-1].set(1.0), num_classes)


def state(process: Any, x: ArrayLike) -> Array:
    """x as the process has it: int32 classes of a categorical one, floats of all others."""
    return classes(x) if isinstance(process, Categorical) else as_float(x)


def classes(x: ArrayLike) -> Int[Array, "..."]:
    """Classes as int32."""
    return jnp.asarray(x).astype(jnp.int32)


def split(log_q: Array) -> tuple[Array, Array]:
    """Where a log-probability is finite, and it with 0 elsewhere."""
    possible = log_q > -jnp.inf
    return possible, jnp.where(possible, log_q, 0.0)


def log_sum(a: Array, axis: int = -1) -> Array:
    """log Σ exp(a), -inf where all are -inf; gradients are finite there, too."""
    most = jax.lax.stop_gradient(a.max(axis, keepdims=True))
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    return log(jnp.exp(a - most).sum(axis)) + jnp.squeeze(most, axis)


def _log_add(a: Array, b: Array) -> Array:
    """log(exp a + exp b) with finite gradients where both are -inf."""
    return log_sum(jnp.stack(jnp.broadcast_arrays(a, b)), axis=0)


def _kept(rate: Array, law: Array) -> tuple[Array, Array, Array]:
    """k, 1 - k, with an axis of states, and the law in their type."""
    rate = rate[..., None]
    return jnp.exp(-rate), -jnp.expm1(-rate), jnp.asarray(law, rate.dtype)
