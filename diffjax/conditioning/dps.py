"""Diffusion posterior sampling (Chung et al. 2023, algorithm 1): Stepper -> Stepper.

    x_s = (a step from x_t) - zeta ∇ ‖y - f(x̂_0(x_t))‖,   the gradient with respect to x_t

This is the norm, not its square. The paper's text has the square and divides zeta_i by the norm; its code has the norm.
zeta does not depend on tau, on t or on the number of steps. So the samples do not come from a posterior.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax.errors import InputError
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper
from diffjax.schedules import broadcast_to

TINY = 1e-30  # the norm of 0 has no gradient


def dps(stepper: Stepper, process: Gaussian, residual: Callable[[Array], Array], zeta: ArrayLike = 1.0) -> Stepper:
    """A stepper that also moves x towards f(x_0) = y, for any f with a gradient.

    **Biased**. The bias depends on zeta and on the number of steps. In the Gaussian example of `measurements`:

        zeta                                                 0.01    0.1      1
        error of the mean of x_1, in standard deviations     0.39   1.35   1.43
        trace of the covariance over the right one           1.04   0.52   0.80
        variance of A x_0 over the right one                 0.16   0.03   2.95

    With a small zeta the samples do not reach y. With a larger one they fit the noise of y. With the largest they
    overshoot.

    Args:
        stepper: a sampler with one prediction a step. The paper uses `ancestral` with 1000 steps.
        residual: x_0 (batch, *event) -> y - f(x_0), (batch, ...), e.g. `Measurement.residual`.
        zeta: () or (batch,), in the units of x.

    Raises:
        InputError: if the process is not Gaussian. When called, if the residual has no entry for each example.
    """
    if not isinstance(process, Gaussian):
        raise InputError(f"dps is for Gaussian processes, not for {type(process).__name__}")

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        def distance(x: Array) -> Array:
            off = residual(convert(predict(x, t), "x0", process, x, t))
            if off.shape[:1] != x.shape[:1]:
                raise InputError(f"residual must have the batch axis of the samples, {len(x)}, not shape {off.shape}")
            return jnp.sqrt(jnp.square(off).reshape(len(x), -1).sum(1) + TINY).sum()

        slope = jax.grad(distance)(state.x)
        new = stepper.step(key, predict, state, t, s)
        return new._replace(x=new.x - broadcast_to(zeta, slope) * slope)

    return stepper._replace(step=step)
