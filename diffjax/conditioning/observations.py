"""What is known of x_0, as r(x_0) = Π_i exp(-½ precision_i (y_i - x_i)²).

The precision is 0 where nothing is known and +inf where x_i is known exactly. For bits, precision · (y - ½) is the
log-odds log r(1)/r(0).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from diffjax import dtypes
from diffjax.errors import InputError
from diffjax.processes import Binomial, Gaussian


class Observation(NamedTuple):
    """r(x_0) = Π_i exp(-½ precision_i (y_i - x_i)²). Both broadcast against x: (batch, *event) or (*event)."""

    y: Float[Array, "..."]
    precision: Float[Array, "..."]

    def log_r(self, x: Float[Array, "batch *event"], t: ArrayLike = 0.0) -> Float[Array, " batch"]:
        """log r(x) in nats, the same at every t, as `perturbed` takes it for the kernels of Sohl-Dickstein et al."""
        x = dtypes.as_float(x)
        y, precision = fitting(self, x)
        return event_sum(jnp.where((precision == 0) | (x == y), 0.0, -0.5 * precision * (y - x) ** 2))

    @property
    def log_odds(self) -> Array:
        """log r(1)/r(0) of every entry, for bits."""
        return jnp.where(self.precision > 0, self.precision * (self.y - 0.5), 0.0)


def denoising(y: Float[Array, "..."], noise_std: ArrayLike) -> Observation:
    """y = x_0 + noise_std · N(0, I).

    Raises:
        InputError: if a concrete noise_std is not positive and finite.
    """
    if not isinstance(noise_std, jax.core.Tracer) and not ((np.asarray(noise_std) > 0) & np.isfinite(noise_std)).all():
        raise InputError(
            f"noise_std must be positive and finite, not {noise_std}: for pixels known exactly use inpainting"
        )
    y = dtypes.as_float(y)
    return Observation(y, jnp.broadcast_to(1.0 / jnp.asarray(noise_std, y.dtype) ** 2, y.shape))


def inpainting(y: Float[Array, "..."], mask: Bool[Array, "..."]) -> Observation:
    """x_0 = y where the mask is True. Elsewhere nothing is known, and y may have any value, also NaN.

    Args:
        mask: of the shape of y, or of an event if y has a leading batch axis. True where x_0 is known.

    Raises:
        InputError: if the mask is not boolean, or of another shape.
    """
    y, mask = dtypes.as_float(y), jnp.asarray(mask)
    if mask.dtype != bool:
        raise InputError(
            f"mask must be boolean, True where the value is known, not {mask.dtype}: use mask.astype(bool)"
        )
    fits = mask.ndim in (y.ndim - 1, y.ndim) and all(
        a in (1, b) for a, b in zip(mask.shape[::-1], y.shape[::-1], strict=False)
    )
    if not fits:
        raise InputError(
            f"mask has shape {mask.shape}, y {y.shape}: give it y's shape, with axes of size 1 to broadcast"
        )
    mask = jnp.broadcast_to(mask, y.shape)
    return Observation(jnp.where(mask, y, 0.0), jnp.where(mask, jnp.inf, jnp.zeros_like(y)))


def flipped(y: Float[Array, "..."], probability: ArrayLike) -> Observation:
    """An observation of bits, each flipped with this probability: 0 is exact knowledge, ½ is no information.

    Raises:
        InputError: if concrete bits are not 0 or 1, or a concrete probability is not in [0, ½].
    """
    y = dtypes.as_float(y)
    check_bits(y)
    if not isinstance(probability, jax.core.Tracer) and not (abs(np.asarray(probability) - 0.25) <= 0.25).all():
        raise InputError(f"the flip probability must be in [0, 0.5], not {probability}: above it, pass 1 - y and 1 - p")
    p = jnp.asarray(probability, y.dtype)
    return Observation(y, jnp.broadcast_to(2.0 * (jnp.log1p(-p) - jnp.log(p)), y.shape))


def fitting(observation: Observation, x: Array) -> Observation:
    """The observation in the type of x, or an InputError if it does not broadcast against x."""
    shape = jnp.broadcast_shapes(jnp.shape(observation.y), jnp.shape(observation.precision))
    if len(shape) > x.ndim or any(a not in (1, b) for a, b in zip(shape[::-1], x.shape[::-1], strict=False)):
        raise InputError(f"the observation has shape {shape}, which must broadcast to that of the samples, {x.shape}")
    return Observation(*(jnp.asarray(a, x.dtype) for a in observation))


def event_sum(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).sum(1)


def check_fits(process: Gaussian | Binomial, observation: Any) -> None:
    if isinstance(process, Binomial):
        if not isinstance(observation, Observation):
            raise InputError("a binomial process observes its bits, 0 or 1, not a linear operator of them")
        check_bits(observation.y, observation.precision)


def check_bits(y: ArrayLike, precision: ArrayLike = 1.0) -> None:
    if isinstance(y, jax.core.Tracer) or isinstance(precision, jax.core.Tracer):
        return
    y, precision = np.broadcast_arrays(y, precision)
    known = y[precision > 0]
    wrong = known[(known != 0) & (known != 1)]
    if wrong.size:
        raise InputError(f"a binomial process observes bits, 0 or 1, not {wrong[0]}: binarise y")
