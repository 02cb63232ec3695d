"""Straight paths: the straightness of a flow, and pairs that make it straighter (Liu et al. 2023).

    straightness  S = E ∫_0^1 |x_1 - x_0 - u(x_t, t)|² dt,   dx_t/dt = u.   It is 0 if and only if every path is a line
                  with constant speed. One step of Euler's rule is then exact
    reflow        trains another flow on the pairs (x_1, x_0) that the first flow makes of points x_1 of the source

The pairs have the marginals of the first flow. Their convex transport costs are not higher than those of the pairs
it was trained on. The new flow is straighter: the mean of S over k rounds is O(1/k). The errors of the flows add up.
"""

from collections.abc import Callable
from typing import Any

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


def flow_path(
    process: Gaussian,
    predict: Predict,
    x1: Float[Array, "batch *event"],
    num_steps: int = 100,
    stepper: Stepper | None = None,
) -> Float[Array, "num_steps+1 batch *event"]:
    """x_t of the probability flow from x_1, at equal steps of t from 1 to 0, both ends included.

    Args:
        stepper: a deterministic one. The default is `samplers.heun`.

    Raises:
        InputError: if num_steps is not a positive integer.
    """
    _, path = _carry(process, predict, x1, num_steps, stepper, lambda state: state.x)
    return jnp.concatenate([as_float(x1)[None], path])


def flow_ends(
    process: Gaussian,
    predict: Predict,
    x1: Float[Array, "batch *event"],
    num_steps: int = 100,
    stepper: Stepper | None = None,
) -> Float[Array, "batch *event"]:
    """x_0 of the probability flow from x_1. (x_1, x_0) are the pairs of a reflow. Arguments as in `flow_path`."""
    return _carry(process, predict, x1, num_steps, stepper, None)


def straightness(
    process: Gaussian,
    predict: Predict,
    x1: Float[Array, "batch *event"],
    num_steps: int = 100,
    stepper: Stepper | None = None,
) -> Float[Array, " batch"]:
    """∫ |x_1 - x_0 - u(x_t, t)|² dt along the flow's path from each x_1, as a mean over the event.

    The path has `num_steps` equal steps. The integral uses the midpoint rule: u in the middle of a step is
    (x_t - x_s)/(t - s), up to an error of second order. So there are no evaluations besides those of the path.

    Arguments as in `flow_path`. Euler's rule measures the path of its own steps. A path of one step is straight.
    """
    return straightness_of(flow_path(process, predict, x1, num_steps, stepper))


def straightness_of(path: Float[Array, "num_times batch *event"]) -> Float[Array, " batch"]:
    """`straightness` of a path from `flow_path`."""
    num_steps = len(path) - 1
    slopes = -jnp.diff(path, axis=0) * num_steps
    return ((path[0] - path[-1] - slopes) ** 2).reshape(num_steps, path.shape[1], -1).mean((0, 2))


def _carry(
    process: Gaussian, predict: Predict, x1: Array, num_steps: int, stepper: Stepper | None, save: Callable | None
) -> Any:
    check_num_steps("num_steps", num_steps)
    x1 = as_float(x1)
    times = jnp.linspace(1.0, 0.0, int(num_steps) + 1, dtype=x1.dtype)
    key = jax.random.key(0)  # a deterministic sampler does not use it
    return denoise(stepper or heun(process), predict, key, x1, times, save)
