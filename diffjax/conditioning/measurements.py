"""y = A x_0 + tau n, n ~ N(0, I), with any linear A: an `Observation` of the entries of x_0 in another basis.

    A = U S Vᵀ,   u = Vᵀ x_0:   (Uᵀ y)_i / s_i = u_i + (tau/s_i) n_i,   and nothing is known of u_i where s_i is 0

V is orthonormal. So u has the process of x, and a Predict of x is also one of u, as in `rotated`. In these coordinates
each entry is observed on its own. "isotropic" guidance by it is pseudoinverse guidance (Song et al. 2023):
∇ log N(y; A x̂_0, r² A Aᵀ + tau² I), r² = sigma²/(alpha² + sigma²). A is decomposed once, before any sampling.

An example shows how far each method is from the posterior: y = x_1 - x_2/2 + n/2 = 1, by DDPM's chain of 1000 steps. p
is N(0, C), with unit variances and correlation 0.8, or the mixture 0.4 N((-1, 0), C) + 0.6 N((1, 0.5), diag(0.5, 0.3)).
The table has the errors of the means of x_1 and x_2, in posterior standard deviations, and the trace of the covariance
over the right one:

                                       Gaussian                mixture
    `given`, "full"                0      0      1        -0.04  -0.01   1.06
    `given`, "isotropic"         -0.29  -0.22   1.09      -0.05  -0.02   1.09
    `guided` by `plugged`         0.58   0.46   0.83       0.31   0.10   0.86
    `dps`, zeta = 0.1             1.35   1.25   0.52       0.31   0.16   0.64
    `twisted`                    tends to 0, 0 and 1 with the number of particles, see there
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes, pytrees
from diffjax.conditioning.observations import Observation, event_sum
from diffjax.conditioning.operators import Operator
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.predictions import Predict, Prediction

MAX_EVENT = 4096  # entries of an event; with more, its D x D basis is too large
UNSEEN = 1e-5  # times the largest singular value: smaller ones are rounding errors of A


@pytrees.register
@dataclass(frozen=True)
class Measurement:
    """y = A x_0 + noise · N(0, I), made by `linear_operator`. `given` and `expected` take it like an `Observation`.

    y: (M,) or (batch, M). A measurement has M entries.
    matrix: A, (M, D). An event has D entries.
    noise: tau, ().
    basis: Vᵀ, (D, D), orthonormal rows.
    seen: the observation of u = basis x_0, (D,) or (batch, D).
    shape: that of an event.
    """

    y: Float[Array, "*batch M"]
    matrix: Float[Array, "M D"]
    noise: Float[dtypes.AnyArray, ""]
    basis: Float[Array, "D D"]
    seen: Observation
    shape: tuple[int, ...] = field(metadata={"static": True})

    def residual(self, x: Float[Array, "batch *event"]) -> Float[Array, "batch M"]:
        """y - A x."""
        x = self._flat(x)
        if self.y.ndim == 2 and len(self.y) not in (1, len(x)):
            raise InputError(f"there are {len(self.y)} measurements for {len(x)} samples: give one, or one for each")
        return jnp.asarray(self.y, x.dtype) - matmul(x, jnp.asarray(self.matrix, x.dtype).T)

    def log_r(self, x: Float[Array, "batch *event"], t: ArrayLike = 0.0) -> Float[Array, " batch"]:
        """log N(y; A x, tau² I) in nats, the same at every t.

        Raises:
            InputError: if there is no noise, because then there is no density.
        """
        if not isinstance(self.noise, jax.core.Tracer) and np.asarray(self.noise) == 0:
            raise InputError("y has no density without noise: give linear_operator a noise above 0")
        off = self.residual(x)
        law = Normal(jnp.zeros_like(off), jnp.asarray(self.noise, off.dtype) ** 2)
        return event_sum(law.log_prob(off))

    def coordinates(self, x: Float[Array, "batch *event"]) -> Float[Array, "batch D"]:
        """u = Vᵀ x."""
        x = self._flat(x)
        return matmul(x, jnp.asarray(self.basis, x.dtype).T)

    def event(self, u: Float[Array, "batch D"]) -> Float[Array, "batch *event"]:
        """x = V u."""
        return matmul(u, jnp.asarray(self.basis, u.dtype)).reshape(len(u), *self.shape)

    def inwards(self, predict: Predict) -> Predict:
        """The Predict of u. A log-variance stays that of x, because it is not read before `outwards`."""

        def turned(u: Array, t: Array) -> Prediction:
            prediction = predict(self.event(dtypes.as_float(u)), t)
            return replace(prediction, value=self.coordinates(prediction.value))

        return turned

    def outwards(self, predict: Predict) -> Predict:
        """The Predict of x, from a Predict of u."""

        def turned(xt: Array, t: Array) -> Prediction:
            prediction = predict(self.coordinates(xt), t)
            return replace(prediction, value=self.event(prediction.value))

        return turned

    def _flat(self, x: Array) -> Array:
        x = dtypes.as_float(x)
        if x.shape[1:] != self.shape:
            raise InputError(f"samples have shape {x.shape}, the operator takes events of shape {self.shape}")
        return x.reshape(len(x), -1)


def linear_operator(
    apply: Operator, y: Float[ArrayLike, "..."], noise: ArrayLike, shape: tuple[int, ...]
) -> Measurement:
    """The observation y = A x_0 + noise · N(0, I).

    Directions of x_0 whose singular value is below 1e-5 of the largest count as unseen. If the noise is 0, A x_0 is the
    point in the range of A that is nearest to y.

    Args:
        apply: A, a linear function of one event, see `operators`. Its matrix is computed here, so it must not depend on
            traced values.
        y: (*measurement), or (batch, *measurement). It may be traced, for example by a `vmap` of `twisted`.
        noise: tau, at least 0. If it is 0, `given` knows A x_0 exactly, and the density `log_r` does not exist.
        shape: that of an event, of at most 4096 entries. For larger events see `colourisation`, `inpainting` and
            `plugged`, which need no matrix.

    Raises:
        InputError: if apply is not linear or depends on traced values, if y or the noise do not fit, or if the event is
            too large.
    """
    shape = tuple(shape)
    matrix, measured = _matrix(apply, shape)
    y = dtypes.as_float(y)
    if y.shape not in (measured, (*y.shape[:1], *measured)):
        raise InputError(
            f"y has shape {y.shape}, but the operator gives {measured} of an event: give y that shape, or a batch axis"
        )
    if jnp.ndim(noise) or (not isinstance(noise, jax.core.Tracer) and not 0 <= np.asarray(noise) < np.inf):
        raise InputError(f"the noise's standard deviation must be one number, at least 0 and finite, not {noise}")
    flat = y.reshape(-1) if y.shape == measured else y.reshape(len(y), -1)
    left, scale, basis = np.linalg.svd(matrix.astype(np.float64))
    seen = scale > UNSEEN * scale.max(initial=0.0)
    rank, size = int(seen.sum()), matrix.shape[1]
    scale = np.where(np.arange(size) < rank, np.pad(scale, (0, size - len(scale)), constant_values=1.0), 1.0)
    # numpy, because under jit jnp would trace even a concrete number, and `log_r` checks whether it is 0.
    noise = jnp.asarray(noise, y.dtype) if isinstance(noise, jax.core.Tracer) else np.asarray(noise, y.dtype)
    # (Uᵀ y)_i/s_i for the observed directions, which come first, and 0 for all others.
    pseudoinverse = jnp.asarray(np.matmul(np.eye(size, rank), left.T[:rank]) / scale[:, None], y.dtype)
    precision = jnp.where(jnp.arange(size) < rank, (jnp.asarray(scale, y.dtype) / noise) ** 2, 0.0)
    observation = Observation(matmul(flat, pseudoinverse.T), precision)
    return Measurement(flat, jnp.asarray(matrix, y.dtype), noise, jnp.asarray(basis, y.dtype), observation, shape)


def _matrix(apply: Operator, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """A (M, D) and the shape of a measurement. It checks that A is linear."""
    size = int(np.prod(shape))
    if size > MAX_EVENT:
        raise InputError(
            f"shape has {size} entries, but linear_operator makes a matrix for at most {MAX_EVENT}: use `plugged`"
        )
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        rng = np.random.default_rng(0)
        # 0, the unit vectors, and two points far from 0.
        probes = np.concatenate([np.zeros((1, size)), np.eye(size), 10.0 * rng.normal(size=(2, size))])
        found = jax.vmap(apply)(jnp.asarray(probes.reshape(-1, *shape), float))
    if isinstance(found, jax.core.Tracer):
        raise InputError("the operator depends on traced values: call linear_operator outside jit")
    values = np.asarray(found).reshape(len(probes), -1)
    zero, matrix, images = values[0], values[1 : size + 1].T, values[size + 1 :]
    points = probes[size + 1 :]
    off = np.abs(images - np.matmul(points, matrix.T))
    # 0.1% of the summed terms is more than any rounding error. A NaN is refused, too.
    if not (zero == 0).all() or not (off <= 1e-3 * np.matmul(np.abs(points), np.abs(matrix).T) + 1e-30).all():
        raise InputError(
            "apply must be linear, A(a x + b z) = a A x + b A z and A 0 = 0, but at random points it is not:"
            " for a nonlinear function use `plugged` with `guided` or `twisted`"
        )
    return matrix, found.shape[1:]
