"""MeanFlow (Geng et al. 2025): a network of two times learns the mean velocity of the flow between them.

    (t - r) u(x_t, r, t) = ∫_r^t v*(x_τ, τ) dτ = x_t - x_r       along the flow, v* its velocity

Its derivative in t along the flow is the MeanFlow identity: u = v* - (t - r) du/dt, du/dt = v* ∂_x u + ∂_t u. The
velocity v of one example has the mean v* given x_t, so the loss uses v in place of v*:

    loss   |u - sg(v - (t - r) du/dt)|²,   du/dt by one forward derivative along (v, 0, 1)

sg stops the gradient. At r = t it is flow matching. At the exact u the loss is Var(v | x_t) (1 - (t - r) ∂_x u)², not
0; only the mean of its gradient is 0 there. Large losses would dominate the others, so the paper minimises `adaptive`,
the loss divided by sg(loss + 1e-3)^p, p = 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import unpair
from diffjax.processes import Gaussian
from diffjax.randomness import Keys, normal
from diffjax.samplers.ode import Average
from diffjax.schedules import broadcast_to


def mean_flow(
    process: Gaussian,
    average: Average,
    key: Keys,
    x0: Float[Array, "batch *event"],
    r: Float[Array, " batch"],
    t: Float[Array, " batch"],
) -> Float[Array, " batch"]:
    """Mean over the event of the squared error of u(x_t, r, t).

    Args:
        average: u, (xt, r, t) -> (batch, *event).
        r, t: r <= t. The schedule must have finite slopes there: `straight` at any time, variance-preserving schedules
            not at t = 0.

    Raises:
        InputError: if r is later than t.
    """
    if not any(isinstance(time, jax.core.Tracer) for time in (r, t)) and not (np.asarray(r) <= np.asarray(t)).all():
        raise InputError("r must be at most t in every example: exchange them, data are at 0 and noise at 1")
    x0, schedule = as_float(x0), process.schedule
    r, t = jnp.asarray(r, x0.dtype), jnp.asarray(t, x0.dtype)
    eps = normal(key, x0.shape, x0.dtype)
    xt = broadcast_to(schedule.alpha(t), x0) * x0 + broadcast_to(schedule.sigma(t), x0) * eps
    v = unpair("velocity", schedule, x0, eps, t)
    u, rate = jax.jvp(average, (xt, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
    target = jax.lax.stop_gradient(v - broadcast_to(t - r, x0) * rate)
    return ((u - target) ** 2).reshape(len(x0), -1).mean(1)


def adaptive(loss: Float[Array, " batch"], power: ArrayLike = 1.0, offset: ArrayLike = 1e-3) -> Float[Array, " batch"]:
    """loss/sg(loss + offset)^power: all examples contribute about equally to the gradient, whatever their loss.

    Args:
        loss: the loss of each example; in the paper, |error|² summed over the event.
        power: 0 leaves the loss as it is.
    """
    return loss * jax.lax.stop_gradient((loss + offset) ** -jnp.asarray(power, loss.dtype))
