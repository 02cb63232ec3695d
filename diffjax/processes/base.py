"""What every process has: the conditionals of a Markov chain q(x_t | x_0) that ends in a prior."""

from typing import Literal, Protocol

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax.distributions import Distribution
from diffjax.dtypes import as_float
from diffjax.predictions import Prediction
from diffjax.schedules import Schedule

Variance = Literal["posterior", "forward", "learned", "shifted"]


class Process(Protocol):
    """The conditionals of a diffusion. Times are in [0, 1] and have shape () or the leading axes of x; s < t.

    A conditional has the floating type of its x. The prior has no x: its type is jax's default.
    """

    @property
    def schedule(self) -> Schedule: ...
    def prior(self, shape: tuple[int, ...]) -> Distribution: ...
    def marginal(self, x0: Array, t: ArrayLike) -> Distribution: ...
    def transition(self, xs: Array, s: ArrayLike, t: ArrayLike) -> Distribution: ...
    def posterior(self, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike) -> Distribution: ...
    def reverse(
        self, prediction: Prediction, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance
    ) -> Distribution: ...


def same_type(x: Array, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array, Array]:
    """x in its floating type, and the times in the same type."""
    x = as_float(x)
    return x, jnp.asarray(s, x.dtype), jnp.asarray(t, x.dtype)
