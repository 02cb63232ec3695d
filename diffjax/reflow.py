"""Straight paths: how straight a flow is, and the pairs that make it straighter (Liu et al. 2023).

    straightness  S = E ∫_0^1 |x_1 - x_0 - u(x_t, t)|² dt,   dx_t/dt = u,   0 if and only if every path is a line
                  that is passed at constant speed: one step of Euler's rule is exact then
    reflow        train another flow on the pairs (x_1, x_0) that the first one made of points x_1 of the source

The pairs have the marginals of the first flow and lower convex transport costs than those it was trained on; the new
flow is straighter, S = O(1/k) after k rounds in the mean. What is lost is the first flow's error, which adds up.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import as_float
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.samplers import denoise, heun
from diffjax.samplers.driver import Stepper


def flow_ends(
    process: Gaussian,
    predict: Predict,
    x1: Float[Array, "batch *event"],
    num_steps: int = 100,
    stepper: Stepper | None = None,
) -> Float[Array, "batch *event"]:
    """x_0 of the probability flow from x_1, by `num_steps` equal steps: (x_1, x_0) are the pairs of a reflow.

    Args:
        stepper: a deterministic one, `samplers.heun` unless given.

    Raises:
        InputError: if num_steps is no positive integer.
    """
    return _path(process, predict, x1, num_steps, stepper)[-1]


def straightness(
    process: Gaussian,
    predict: Predict,
    x1: Float[Array, "batch *event"],
    num_steps: int = 100,
    stepper: Stepper | None = None,
) -> Float[Array, " batch"]:
    """∫ |x_1 - x_0 - u(x_t, t)|² dt along the flow's path from each x_1, a mean over the event.

    The path has `num_steps` equal steps, and the integral is by the midpoint rule on it: u in the middle of a step is
    (x_t - x_s)/(t - s) but for an error of second order. No evaluations are needed beside the path's.

    Args:
        stepper: a deterministic one, `samplers.heun` unless given. Euler's rule measures the path of that many of its
            own steps, which is straight if there is one.

    Raises:
        InputError: if num_steps is no positive integer.
    """
    path = _path(process, predict, x1, num_steps, stepper)
    slopes = -jnp.diff(path, axis=0) * num_steps
    return ((path[0] - path[-1] - slopes) ** 2).reshape(num_steps, path.shape[1], -1).mean((0, 2))


def _path(process: Gaussian, predict: Predict, x1: Array, num_steps: int, stepper: Stepper | None) -> Array:
    """(num_steps + 1, batch, *event) from t = 1 to 0."""
    check_num_steps("num_steps", num_steps)
    x1 = as_float(x1)
    times = jnp.linspace(1.0, 0.0, int(num_steps) + 1, dtype=x1.dtype)
    key = jax.random.key(0)  # of which a deterministic sampler makes no use
    _, path = denoise(stepper or heun(process), predict, key, x1, times, lambda state: state.x)
    return jnp.concatenate([x1[None], path])
