"""Consistency models: f(x_t, t) is where the probability flow through x_t ends, at a time t_min close to the data.

    f(x_t, t) = alpha_min x̂_0 + sigma_min ê = (sigma_min/sigma) x_t + (alpha_min - sigma_min alpha/sigma) x̂_0

is the DDIM step to t_min of any Predict, so f(x, t_min) = x for every network. With `preconditioned`

    c_skip = (sigma_min sigma + alpha_min alpha s²)/(sigma² + alpha² s²)
    c_out  = (alpha_min sigma - sigma_min alpha) s/√(sigma² + alpha² s²)

At alpha = 1, c_out is that of Song et al. (2023, appendix C). Their c_skip is s²/((sigma - sigma_min)² + s²), which is
also 1 at t_min. The c_skip here leaves F an error of least variance at all noise levels. Networks that predict eps or v
give the f of their kind.

    distillation  d(f(x_t, t), sg f⁻(x̂_s, s)),  x̂_s by one step of a solver from x_t, on the teacher's flow
                                                                            (Song et al. 2023, algorithm 2)
    training      d(f(x_t, t), sg f⁻(x_s, s)),   x_s = alpha_s x_0 + sigma_s eps with the eps of x_t
                                                                            (the same, algorithm 3)
    d             √(|error|² + c²) - c,          c = 0.00054 √D             (Song & Dhariwal 2024, section 3.3)

sg stops the gradient; f⁻ has the weights of f or a running mean of them. Losses are per example, in units of the data.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.losses.diffusion import draw
from diffjax.predictions import Predict, Prediction, pair
from diffjax.processes import Gaussian
from diffjax.randomness import Keys, normal
from diffjax.samplers.ode import flow_step
from diffjax.schedules import broadcast_to


def consistency_function(process: Gaussian, predict: Predict, t_min: ArrayLike) -> Predict:
    """Turns any Predict into f, a Predict of kind x0 for the sampler `consistency`.

    Args:
        t_min: the time at which f is the identity. It must have noise, sigma(t_min) > 0.

    Raises:
        InputError: if t_min is not in (0, 1).
    """
    if not isinstance(t_min, jax.core.Tracer) and not 0 < np.asarray(t_min) < 1:
        raise InputError(f"t_min must be a time in (0, 1), where f(x, t_min) = x, not {t_min}")

    def f(xt: Array, t: Array) -> Prediction:
        xt = as_float(xt)
        x0, eps = pair(predict(xt, t), process.schedule, xt, t)
        alpha, sigma = (broadcast_to(a, xt) for a in (process.schedule.alpha(t_min), process.schedule.sigma(t_min)))
        return Prediction(alpha * x0 + sigma * eps, "x0")

    return f


def consistency_distillation(
    process: Gaussian,
    f: Predict,
    teacher: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    t: Float[Array, " batch"],
    target: Predict | None = None,
    order: int = 2,
    c: float | None = None,
) -> Float[Array, " batch"]:
    """The distance d between f at x_t and f at x̂_s, where the teacher's step from x_t ends; 0 along an exact flow.

    With an exact teacher and an exact f, the error is that of the step, O((t - s)^(order + 1)), and d is its square.

    Args:
        f: a consistency function, `consistency_function` of the student.
        teacher: a diffusion model. No gradient goes to it.
        s, t: t_min <= s < t, e.g. from `consistency_pairs`.
        target: f⁻; by default f itself.
        order: of the teacher's step, 2 (Heun, two evaluations of the teacher) or 1 (DDIM).
        c: of `pseudo_huber`.

    Raises:
        InputError: on another order, times that do not ascend, or an f of another kind.
    """
    if order not in (1, 2):
        raise InputError(f"order must be 1 or 2, that of the teacher's step, not {order!r}")
    x0, s, t = _checked(x0, s, t)
    xt = draw(process.marginal(x0, t), key)
    xs = flow_step(process, teacher, xt, t, s, order)
    return pseudo_huber(_end(f, xt, t) - jax.lax.stop_gradient(_end(target or f, xs, s)), c)


def consistency_training(
    process: Gaussian,
    f: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    t: Float[Array, " batch"],
    target: Predict | None = None,
    c: float | None = None,
) -> Float[Array, " batch"]:
    """The distance between f at x_t and f at x_s, with the same noise. There is no teacher.

    As s → t its gradient is that of distillation. For one x_0, the path from x_t to x_s is not the flow's, so the least
    value is not 0.

    Args:
        f, s, t, target, c: as in `consistency_distillation`.

    Raises:
        InputError: as `consistency_distillation`.
    """
    x0, s, t = _checked(x0, s, t)
    eps = normal(key, x0.shape, x0.dtype)

    def noised(t: Array) -> Array:
        return broadcast_to(process.schedule.alpha(t), x0) * x0 + broadcast_to(process.schedule.sigma(t), x0) * eps

    return pseudo_huber(_end(f, noised(t), t) - jax.lax.stop_gradient(_end(target or f, noised(s), s)), c)


def pseudo_huber(error: Float[Array, "batch *event"], c: float | None = None) -> Float[Array, " batch"]:
    """√(|error|² + c²) - c, |.| the norm over the event: |error|²/(2c) for small errors, |error| for large ones.

    Args:
        c: positive; by default 0.00054 √D for D elements.

    Raises:
        InputError: if c is not positive.
    """
    c = 0.00054 * math.sqrt(error[0].size) if c is None else c
    if not c > 0:
        raise InputError(f"c must be a positive number, that of the pseudo-Huber distance, not {c}")
    square = (error**2).reshape(error.shape[0], -1).sum(1)
    return square / (jnp.sqrt(square + c**2) + c)  # the difference would lose its digits where the error is small


def _end(f: Predict, x: Array, t: Array) -> Array:
    """f(x, t)."""
    said = f(x, t)
    if said.kind != "x0":
        raise InputError(f"f is a Predict of kind {said.kind!r}, not 'x0': make it by consistency_function")
    return said.value


def _checked(x0: Array, s: Array, t: Array) -> tuple[Array, Array, Array]:
    if not any(isinstance(time, jax.core.Tracer) for time in (s, t)) and not (np.asarray(s) < np.asarray(t)).all():
        raise InputError("s must be earlier than t in every example: exchange them, data are at 0 and noise at 1")
    x0 = as_float(x0)
    return x0, jnp.asarray(s, x0.dtype), jnp.asarray(t, x0.dtype)
