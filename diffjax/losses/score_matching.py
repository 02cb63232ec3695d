"""Score matching fits a function s(x) to ∇log p(x). It needs samples of p, but not its density.

    exact      tr(∇s) + ½‖s‖²                        (Hyvärinen 2005, theorem 1)
    sliced     v'(∇s)v + ½(v's)², E vv' = I          (Song et al. 2019, eq. 8)
               v'(∇s)v + ½‖s‖², variance reduced     (eq. 9)
    denoising  ½ λ(σ) ‖s(x̃) + (x̃ - x)/σ²‖², x̃ = x + σ eps   (Vincent 2011; λ(σ) = σ² of Song & Ermon 2019)
    weighted   ½ λ(t) ‖s(x_t, t) - ∇log q(x_t | x_0)‖²        (Song et al. 2021, eq. 7)

The first two have the mean ½ E‖s - ∇log p‖² - ½ E‖∇log p‖²: their least value is negative, -D/(2s²) on N(0, s² I_D).
The denoising ones fit the score of the noised density, and their least value is positive: for these data and λ = σ² it
is ½ D s²/(s² + σ²), at s(x) = -x/(s² + σ²). They are computed from the noise, ‖σ s + eps‖² = σ² ‖s + (x̃ - x)/σ²‖²,
because x̃ - x loses eps to rounding when σ is small.

Every loss is per example, (batch,), summed over the event. A score maps (batch, *event) to (batch, *event), each
example by itself. `energy_score` makes a score of a network that returns an energy. A key is one key, or one per
example (`randomness`).
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import eager
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.losses.diffusion import Weight, simple
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.randomness import Keys, normal, uniform
from diffjax.schedules import broadcast_to

Score = Callable[[Array], Array]
Projection = Literal["rademacher", "gaussian", "sphere"]

DIRECTIONS_AT_ONCE = 32  # of the exact trace: it takes the memory of this many batches, whatever the dimension


def exact_score_matching(score: Score, x: Float[Array, "batch *event"]) -> Float[Array, " batch"]:
    """tr(∇s) + ½‖s‖²: one evaluation of the score, and one of its linear part for each of D dimensions.

    Raises:
        InputError: if the score is not of the shape of x.
    """
    shape, size = x.shape[1:], math.prod(x.shape[1:])

    def loss(x: Array) -> Array:
        value, slope = jax.linearize(_checked(score), x)

        def diagonal(i: Array) -> Array:
            # One direction for all examples: they are independent, so the batch's derivative is that of each.
            direction = jax.nn.one_hot(i, size, dtype=x.dtype).reshape(shape)
            return slope(jnp.broadcast_to(direction, x.shape)).reshape(-1, size)[:, i]

        entries = jax.lax.map(diagonal, jnp.arange(size), batch_size=min(size, DIRECTIONS_AT_ONCE))
        return entries.sum(0) + 0.5 * _dot(value, value)

    return eager.once(loss, as_float(x))


def sliced_score_matching(
    score: Score,
    key: Keys,
    x: Float[Array, "batch *event"],
    num_projections: int = 1,
    projection: Projection = "rademacher",
    variance_reduced: bool = True,
) -> Float[Array, " batch"]:
    """The mean of v'(∇s)v + ½‖s‖² over random v, whose expectation is `exact_score_matching`.

    With A = ½(∇s + ∇s') the variance of v'(∇s)v is 2 Σ_{i≠j} A_ij² for "rademacher", 2 Σ A_ij² for "gaussian" and
    2D/(D + 2) (Σ A_ij² - tr(A)²/D) for "sphere". The variance of their mean is `num_projections` times smaller. The
    default's variance is 0 where ∇s is diagonal, and never larger than that of "gaussian".

    Args:
        num_projections: how many v are drawn for each example.
        projection: v is ±1 in each entry, N(0, I), or uniform on the sphere of radius √D: E vv' = I for all three.
        variance_reduced: False has ½(v's)² in place of ½‖s‖²: A gains ½ss' in the formulae above.

    Raises:
        InputError: on an unknown projection, num_projections < 1, or a score that is not of the shape of x.
    """
    if num_projections < 1:
        raise InputError(f"num_projections must be at least 1, not {num_projections}")
    x = as_float(x)
    value, slope = jax.linearize(_checked(score), x)
    v = _directions(key, (x.shape[0], num_projections, *x.shape[1:]), x.dtype, projection)
    loss = jax.vmap(lambda v: _dot(v, slope(v)), in_axes=1)(v).mean(0)
    if variance_reduced:
        return loss + 0.5 * _dot(value, value)
    return loss + 0.5 * (jax.vmap(lambda v: _dot(v, value), in_axes=1)(v) ** 2).mean(0)


def denoising_score_matching(
    score: Score,
    key: Keys,
    x: Float[Array, "batch *event"],
    sigma: ArrayLike,
    weight: Weight = jnp.square,
) -> Float[Array, " batch"]:
    """½ λ(σ) ‖s(x̃) + (x̃ - x)/σ²‖² with x̃ = x + σ eps.

    It takes one noise level or many: sigma is () or (batch,). If the network takes the noise level, close over it:
    `denoising_score_matching(lambda x: network(x, sigma), key, x, sigma)`.

    Args:
        weight: λ. The default σ² makes the losses of all levels similar in size; `jnp.ones_like` is Vincent's.

    Raises:
        InputError: if sigma is not positive, or not () or (batch,), or the score not of the shape of x.
    """
    if jnp.shape(sigma) not in ((), x.shape[:1]):
        raise InputError(f"sigma must be a number or one per example, {x.shape[:1]}, not of shape {jnp.shape(sigma)}")
    if not isinstance(sigma, jax.core.Tracer) and not (np.asarray(sigma) > 0).all():
        raise InputError(f"sigma must be positive, not {sigma}")
    x = as_float(x)
    sigma = jnp.asarray(sigma, x.dtype)
    eps = normal(key, x.shape, x.dtype)
    scale = broadcast_to(sigma, x)
    error = scale * _checked(score)(x + scale * eps) + eps
    return 0.5 * weight(sigma) / sigma**2 * _dot(error, error)


def weighted_score_matching(
    process: Gaussian,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    weight: Weight | None = None,
) -> Float[Array, " batch"]:
    """½ λ(t) ‖s(x_t, t) - ∇log q(x_t | x_0)‖² of a process at times t in (0, 1], whatever kind is predicted.

    It is `denoising_score_matching` at alpha x_0 and sigma, with the same noise, and by default ½D times `simple`.

    Args:
        weight: λ as a function of t. None is sigma². The likelihood weighting is g²,
            `lambda t: sde.squared_diffusion(process.schedule, t)`. With it, the mean over x_0 and t uniform in [0, 1]
            is an upper bound on -E log p(x_0) in nats, up to a constant of the data (Song, Durkan, Murray & Ermon
            2021, corollary 1).
    """
    loss = 0.5 * math.prod(x0.shape[1:]) * simple(process, predict, key, x0, t)
    if weight is None:
        return loss
    t = jnp.asarray(t, loss.dtype)
    return broadcast_to(weight(t), loss) / broadcast_to(process.schedule.sigma(t), loss) ** 2 * loss


def energy_score(energy: Callable[[Array], Array]) -> Score:
    """The score -∇E(x) of p ∝ exp(-E), for an energy (batch, *event) -> (batch,), each example by itself.

    Raises:
        InputError: when called, if the energy is not one number per example.
    """

    def total(x: Array) -> Array:
        value = energy(x)
        if jnp.shape(value) != x.shape[:1]:
            raise InputError(f"an energy must return one number per example, {x.shape[:1]}, not {jnp.shape(value)}")
        return -value.sum()

    return jax.grad(total)


def _directions(key: Keys, shape: tuple[int, ...], dtype: np.dtype, projection: str) -> Array:
    """(batch, num, *event)."""
    match projection:
        case "rademacher":
            return jnp.where(uniform(key, shape, dtype) < 0.5, -1, 1).astype(dtype)
        case "gaussian":
            return normal(key, shape, dtype)
        case "sphere":
            z = normal(key, shape, dtype)
            norm = jnp.sqrt((z**2).sum(tuple(range(2, z.ndim)), keepdims=True))
            return math.sqrt(math.prod(shape[2:])) * z / norm
    raise InputError(f"projection must be 'rademacher', 'gaussian' or 'sphere', not {projection!r}")


def _checked(score: Score) -> Score:
    def checked(x: Array) -> Array:
        value = score(x)
        if jnp.shape(value) != x.shape:
            raise InputError(f"a score must be of the shape of x, {x.shape}, not {jnp.shape(value)}")
        return jnp.asarray(value, x.dtype)

    return checked


def _dot(a: Array, b: Array) -> Float[Array, " batch"]:
    return (a * b).reshape(a.shape[0], -1).sum(1)
