"""Samplers of categorical processes, beside `ancestral`. p̂ is the predicted p(x_0 | x_t) of a place.

tau_leaping    a place jumps to y with the rates r_y of time t, held over the step: with probability 1 - exp(-Δ Σ r),
               to y in proportion to r_y                                             (Campbell et al. 2022, section 4.3)
remasking      masked only. A place that is not masked is masked again with probability ρ; one that is masked is drawn
               from p̂ with probability (alpha_s - (1 - ρ) alpha_t)/(1 - alpha_t), alpha the share that is not masked:
               the marginals stay those of q. ρ = eta min(1, (1 - alpha_s)/alpha_t)   (Wang et al. 2025, "rescale")
first_hitting  masked only. One place a step, at the time at which the next of n masked places is unmasked: it has
               1 - alpha' = (1 - alpha) u^(1/n), u uniform, and the place is uniform. Exact in continuous time, with as
               many steps as places                                                  (Zheng et al. 2025, algorithm 1)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from diffjax.categorical_bound import log_reverse_rates
from diffjax.distributions import Categorical as Law
from diffjax.errors import InputError
from diffjax.predictions import Predict, convert
from diffjax.processes import Categorical
from diffjax.samplers.driver import Noise, State, Stepper, single, starts
from diffjax.schedules import time_of


def tau_leaping(process: Categorical) -> Stepper:
    """At most one jump a place in each step. The last step, to s = 0, draws from the reverse kernel.

    Raises:
        InputError: if the process is not categorical.
    """
    require_categorical("tau_leaping", process)

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        jump_key, class_key, last_key = jax.random.split(single("tau_leaping", key), 3)
        prediction, x = predict(state.x, t), state.x
        # At t = 1 the rate of the schedule may be infinite: leap by the rates in the middle of the step.
        log_rates = log_reverse_rates(process, prediction, x, jnp.where(t == 1, 0.5 * (s + t), t))
        stay = jnp.exp(-(t - s) * jnp.exp(log_rates).sum(-1))
        moved = Law(jnp.where(jnp.isfinite(log_rates), log_rates, -1e30)).sample(class_key)
        leapt = jnp.where(jax.random.uniform(jump_key, x.shape) < stay, x, moved)
        last = process.reverse(prediction, x, jnp.zeros_like(t), t).sample(last_key)
        x0 = convert(prediction, "x0", process, x, t)
        return State(jnp.where(s == 0, last, leapt), x0, process.schedule.log_snr(t))

    return Stepper(process.prior, starts(process), step)


def remasking(process: Categorical, eta: ArrayLike = 0.2) -> Stepper:
    """Places may be masked again and corrected. eta = 0 is `ancestral`; eta = 1 forgets as much as it may.

    Raises:
        InputError: if the process is not masked, or eta not in [0, 1].
    """
    require_masked("remasking", process)
    if not isinstance(eta, jax.core.Tracer) and not 0 <= np.asarray(eta) <= 1:
        raise InputError(f"sampling.eta={eta} must be in [0, 1]: the share of the most that may be masked again")

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        mask_key, class_key = jax.random.split(single("remasking", key))
        prediction, x = predict(state.x, t), state.x
        masked = x == process.num_classes
        alpha_s, alpha_t = (process.schedule.alpha(time) ** 2 for time in (s, t))
        rho = jnp.asarray(eta, alpha_t.dtype) * jnp.minimum(1.0, (1 - alpha_s) / jnp.maximum(alpha_t, 1e-30))
        kept = jnp.where(masked, (1 - alpha_s - rho * alpha_t) / (1 - alpha_t), rho)  # probability of the mask at s
        drawn = Law(process.beliefs(prediction, x, t)).sample(class_key)
        new = jnp.where(jax.random.uniform(mask_key, x.shape) < kept, process.num_classes, drawn)
        return State(new, convert(prediction, "x0", process, x, t), process.schedule.log_snr(t))

    return Stepper(process.prior, starts(process), step)


class Hitting(NamedTuple):
    """The state of `first_hitting`: that of every sampler, and its own time of each example."""

    x: Int[Array, "batch *event"]
    x0: Float[Array, "batch *event"]
    log_snr: Float[Array, ""]
    time: Float[Array, " batch"]


def first_hitting(process: Categorical) -> Stepper:
    """One place a step, at random times of its own: the step's times are not read. It needs a step for each place.

    Further steps change nothing; with fewer, masks are left.

    Raises:
        InputError: if the process is not masked.
    """
    require_masked("first_hitting", process)
    begin = starts(process)

    def init(x: Array) -> Hitting:
        return Hitting(*begin(x), jnp.ones(x.shape[:1]))

    def step(key: Noise, predict: Predict, state: Hitting, t: Array, s: Array) -> Hitting:
        time_key, place_key, class_key = jax.random.split(single("first_hitting", key), 3)
        x = state.x.reshape(len(state.x), -1)
        masked = x == process.num_classes
        num = masked.sum(1)
        u = jax.random.uniform(time_key, num.shape, minval=1e-7)
        hidden = (1 - process.schedule.alpha(state.time) ** 2) * u ** (1 / jnp.maximum(num, 1))  # 1 - alpha at the hit
        time = time_of(process.schedule, jnp.log1p(-hidden) - jnp.log(hidden)).astype(state.time.dtype)
        prediction = predict(state.x, time)
        place = jax.random.categorical(place_key, jnp.where(masked, 0.0, -jnp.inf))
        drawn = Law(process.beliefs(prediction, state.x, time)).sample(class_key).reshape(x.shape)
        hit = masked & (jnp.arange(x.shape[1]) == place[:, None])
        new = jnp.where(hit, drawn, x).reshape(state.x.shape)
        x0 = convert(prediction, "x0", process, state.x, time)
        return Hitting(new, x0, process.schedule.log_snr(t), time)

    return Stepper(process.prior, init, step)


def require_categorical(name: str, process: object) -> None:
    """Raises `InputError` unless the sampler called `name` suits the process."""
    if not isinstance(process, Categorical):
        raise InputError(f"{name} is of categorical processes, not of {type(process).__name__}: use 'ancestral'")


def require_masked(name: str, process: object) -> None:
    """Raises `InputError` unless the process has a mask."""
    require_categorical(name, process)
    if isinstance(process, Categorical) and not process.masked:
        raise InputError(f"{name} is of masked processes: categorical(..., kind='masked'), or use 'ancestral'")
