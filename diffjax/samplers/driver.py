"""The driver of all samplers: a stepper goes from time t to time s < t, and `sample` follows a sequence of times.

Steppers get explicit (t, s) pairs: any decreasing sequence of times is a sampler, and there is no "previous timestep".
A sample keeps the floating type of the x_1 that it began with; samples of a categorical process are int32 classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager, schedules
from diffjax.distributions import Distribution
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction
from diffjax.processes import Categorical, Gaussian, Process, state
from diffjax.schedules import Schedule, broadcast_to


class Path(NamedTuple):
    """A Brownian path W(t), t in [0, 1], in place of a key: a step's noise is the increment of W between its times."""

    key: PRNGKeyArray


Noise = PRNGKeyArray | Path
RESOLUTION = 2.0**-24  # of a path: that of float32 below 1


class State(NamedTuple):
    """The state of a sampler. A stepper may carry more, in a NamedTuple that has these fields, too.

    x: (batch, *event), the sample so far; of classes int32.
    x0: (batch, *event), the latest estimate of the end point: progressive generation shows this.
    log_snr: (), the log-SNR at which x0 was estimated; -inf before the first estimate.
    """

    x: Float[Array, "batch *event"]
    x0: Float[Array, "batch *event"]
    log_snr: Float[Array, ""]


class Stepper(NamedTuple):
    """prior(shape) -> distribution of x at time 1; init(x) -> state; step(key, predict, state, t, s) -> state."""

    prior: Callable[[tuple[int, ...]], Distribution]
    init: Callable[[Array], Any]
    step: Callable[[Noise, Predict, Any, Array, Array], Any]


def sample(
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    times: Float[Array, " num_times"],
    shape: tuple[int, ...],
    save: Callable[[State], Any] | None = None,
    path: bool = False,
) -> Any:
    """Draws x_1 from the prior and follows the times down: one `lax.scan`, memory independent of their number.

    Args:
        times: descending from 1 to 0, e.g. `schedule.times[::-1]` or `spaced(schedule.times, 50)`. The samples have
            their floating type.
        shape: (batch, *event).
        save: what to keep of the state after every step, e.g. `lambda state: state.x`. None keeps nothing.
        path: whether the noise comes from one Brownian path in t, drawn from the key alone. Finer times then refine
            the same sample, so stochastic solvers converge for each key and not only in law. Otherwise the noise of
            step i is drawn from the key and i.

    Returns:
        x_0 of that shape; with `save`, also what was saved, stacked over steps: (x_0, saved).

    Raises:
        InputError: if concrete times do not decrease, or are not in [0, 1]; with `path`, if the stepper's noise cannot
            come from a path, as that of a corrector, of churn, of bits or of classes.
    """
    check_times(times)
    prior_key, key = jax.random.split(key)
    x = stepper.prior(shape).sample(prior_key).astype(floating(times))
    return denoise(stepper, predict, key, x, times, save, path)


def denoise(
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    x: Float[Array, "batch *event"],
    times: Float[Array, " num_times"],
    save: Callable[[State], Any] | None = None,
    path: bool = False,
) -> Any:
    """`sample` from a given x at times[0] instead of from the prior."""
    check_times(times)

    def run(key: PRNGKeyArray, x: Array, times: Array) -> tuple[State, Any]:
        def batched(x: Array, t: Array) -> Prediction:
            return predict(x, jnp.broadcast_to(t, x.shape[:1]))

        def body(state: State, item: tuple[Array, Array, Array]) -> tuple[State, Any]:
            i, t, s = item
            new = stepper.step(Path(key) if path else jax.random.fold_in(key, i), batched, state, t, s)
            state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new, state)
            return state, None if save is None else save(state)

        steps = (jnp.arange(times.shape[0] - 1), times[:-1], times[1:])
        return jax.lax.scan(body, stepper.init(x), steps)

    x = as_float(x)
    state, saved = eager.once(run, key, x, jnp.asarray(times, x.dtype))
    return state.x if save is None else (state.x, saved)


def spaced(times: Float[Array, " num_times"], num_steps: int) -> Float[Array, " num_kept"]:
    """An evenly spaced sub-sequence of the grid `times` with `num_steps` steps; descending, both ends included.

    Raises:
        InputError: if the grid has fewer steps than that.
    """
    available = len(times) - 1
    if not 1 <= num_steps <= available:
        raise InputError(f"steps must be from 1 to the chain's {available}, not {num_steps}")
    index = np.round(np.linspace(available, 0, num_steps + 1)).astype(int)  # in float64: float32 repeats indices
    return jnp.sort(jnp.asarray(times))[index]


def interpolate(
    process: Gaussian,
    stepper: Stepper,
    predict: Predict,
    key: PRNGKeyArray,
    a: Float[Array, " *event"],
    b: Float[Array, " *event"],
    weights: Float[Array, " num"],
    times: Float[Array, " num_times"],
) -> Float[Array, "num *event"]:
    """Decodes (1-λ) a_t + λ b_t, for each λ in `weights`, t = times[0] (Ho et al. 2020, section 4.4 and figure 8).

    a and b are noised to t by separate draws, which stay fixed over λ. One key drives all the chains, so only λ changes
    along the row.

    Raises:
        InputError: as `sample`.
    """
    check_times(times)

    def run(key: PRNGKeyArray, a: Array, b: Array, weights: Array, times: Array) -> Array:
        a_key, b_key, key = jax.random.split(key, 3)
        start, end = process.marginal(a, times[0]).sample(a_key), process.marginal(b, times[0]).sample(b_key)
        weight = weights.reshape(-1, *(1 for _ in a.shape))
        mixed = (1 - weight) * start + weight * end
        return jax.vmap(lambda x: denoise(stepper, predict, key, x[None], times)[0])(mixed)

    dtype = floating(a, b)
    return eager.once(run, key, *(jnp.asarray(value, dtype) for value in (a, b, weights, times)))


def start(x: Float[Array, "batch *event"]) -> State:
    """The state before any step."""
    return State(x, jnp.zeros_like(x), jnp.full((), -jnp.inf, x.dtype))


def starts(process: Process) -> Callable[[Array], State]:
    """`start` for this process: x is an array of int32 classes where the process is categorical."""

    def of_classes(x: Array) -> State:
        return start(x)._replace(x=state(process, x))

    return of_classes if isinstance(process, Categorical) else start


def at(schedule: Schedule, t: Array, x: Array) -> tuple[Array, Array]:
    """alpha and sigma at t, to multiply x."""
    return broadcast_to(schedule.alpha(t), x), broadcast_to(schedule.sigma(t), x)


def normal(noise: Noise, x: Array, t: Array, s: Array) -> Array:
    """z ~ N(0, I), of the shape and type of x, for a step from t to s. With a path: its increment over √|t - s|."""
    if not isinstance(noise, Path):
        return jax.random.normal(noise, x.shape, x.dtype)
    import diffrax  # here, so that `import diffjax` stays light

    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    tree = diffrax.VirtualBrownianTree(0.0, 1.0, RESOLUTION, shape, noise.key)
    return tree.evaluate(s, t) / jnp.sqrt(t - s)


def single(name: str, noise: Noise) -> PRNGKeyArray:
    """The key of a step that cannot take its noise from a path. `name` is what the error message calls the step."""
    if isinstance(noise, Path):
        raise InputError(f"the noise of {name} is not that of one Brownian path: leave path at False")
    return noise


def check_times(times: Array) -> None:
    """Raises `InputError` unless times are a vector of at least 2 that decreases within [0, 1], if it is concrete."""
    if jnp.ndim(times) != 1 or len(times) < 2:
        raise InputError(f"times must be a vector of at least 2 times, not of shape {jnp.shape(times)}")
    # numpy, because jnp would trace the comparison of even concrete times under jit
    if not isinstance(times, jax.core.Tracer) and not (np.diff(np.asarray(times)) < 0).all():
        raise InputError("times must decrease strictly, from 1 towards 0: reverse them with times[::-1]")
    schedules.check_times("times", times)
