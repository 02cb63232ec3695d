"""A Gaussian process as a stochastic differential equation (Song et al. 2021): dx = f(x, t) dt + g(t) dw.

    drift       f = (d log alpha/dt) x
    diffusion   g² = -sigma² dλ/dt = d sigma²/dt - 2 sigma² d log alpha/dt,   λ = log(alpha²/sigma²)
    velocity    dx/dt = f - ½ g² ∇log p_t(x), the probability flow, with the same marginals p_t   (their eq. 13)
                      = alpha' x̂_0 + sigma' ê, which is finite where alpha = 0, unlike f and g²
    reversed    dx = [f - g² ∇log p_t(x)] dt + g dw̄, backwards in time                              (their eq. 6)

f and g are derivatives of the schedule. `vp` has f = -½β x and g = √β. `sub_vp` has g² = β (1 - exp(-2L)). `ve` has
g = sigma √(2 log(sigma_max/sigma_min)). A discrete chain has the diffusion whose rate is constant within a step.

Times of an equation are in (0, 1]: at t = 0 `vp` and `sub_vp` have no noise and no score. Papers stop before 0, at
`sample_from` and `LIKELIHOOD_FROM`. Every function here raises InputError on a concrete time outside of [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.schedules import EDM, VE, Schedule, broadcast_to, check_times

TRAIN_FROM = 1e-5  # the least time of the published models, in training and in likelihoods
LIKELIHOOD_FROM = 1e-5


def sample_from(schedule: Schedule) -> float:
    """The time at which the published samplers stop: 1e-3; 1e-5 for `ve` (Song et al. 2021, appendix C) and `edm`."""
    return 1e-5 if isinstance(schedule, VE | EDM) else 1e-3


def times(schedule: Schedule, num_steps: int) -> Float[Array, " num_times"]:
    """A sampler's grid: `num_steps` equidistant times from 1 to `sample_from`, then 0; a last step without noise.

    Raises:
        InputError: unless num_steps is a positive integer.
    """
    check_num_steps("num_steps", num_steps)
    return jnp.append(jnp.linspace(1.0, sample_from(schedule), int(num_steps)), 0.0)


def drift_rate(schedule: Schedule, t: ArrayLike) -> Array:
    """d log alpha/dt, elementwise in t."""
    return _derivative(lambda t: jnp.log(schedule.alpha(t)), t)


def squared_diffusion(schedule: Schedule, t: ArrayLike) -> Array:
    """g², elementwise in t."""
    return -(schedule.sigma(t) ** 2) * _derivative(schedule.log_snr, t)


def drift(process: Gaussian, x: Float[Array, "*shape"], t: ArrayLike) -> Float[Array, "*shape"]:
    """f(x, t); t is () or of the leading axes of x."""
    x = dtypes.as_float(x)
    return broadcast_to(drift_rate(process.schedule, t), x) * x


def diffusion(process: Gaussian, t: ArrayLike) -> Array:
    """g(t), elementwise."""
    return jnp.sqrt(squared_diffusion(process.schedule, t))


def score(process: Gaussian, predict: Predict) -> Callable[[Array, ArrayLike], Array]:
    """(x (batch, *event), t () or (batch,)) -> ∇log p_t(x), whatever kind is predicted."""

    def at(x: Array, t: ArrayLike) -> Array:
        check_times("t", t)
        x = dtypes.as_float(x)
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        return convert(predict(x, t), "score", process, x, t).astype(x.dtype)

    return at


def velocity(process: Gaussian, predict: Predict) -> Callable[[Array, ArrayLike], Array]:
    """(x (batch, *event), t () or (batch,)) -> dx/dt of the probability flow, alpha' x̂_0 + sigma' ê."""

    def at(x: Array, t: ArrayLike) -> Array:
        check_times("t", t)
        x = dtypes.as_float(x)
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        return convert(predict(x, t), "velocity", process, x, t).astype(x.dtype)

    return at


def _derivative(fn: Callable[[Array], Array], t: ArrayLike) -> Array:
    check_times("t", t)
    t = jnp.asarray(t, dtypes.floating(t))
    return jax.jvp(fn, (t,), (jnp.ones_like(t),))[1]
