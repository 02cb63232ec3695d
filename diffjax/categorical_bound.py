"""The bound of categorical diffusion in continuous time, for every kind of jumps M of `processes.categorical`.

    -log p(x_0) ≤ KL(q(x_1 | x_0) ‖ π) + ∫_0^1 E_{q(x_t | x_0)} Σ_i c_i(x_t, t) dt
    c_i = L'(t) Σ_{y ≠ x_i} M(y, x_i) [ŝ_y - s_y + s_y log(s_y/ŝ_y)]

    s_y  q(y | x_0)/q(x_i | x_0), the ratio in the rate M(y, x_i) L' s_y of the reverse jump from x_i to y, given x_0
    ŝ_y  Σ_{x_0} p̂(x_0 | x_t) q(y | x_0)/q(x_i | x_0), the model's

It is the limit of `bounds.diffusion` for many steps, and the score entropy of Lou et al. (2024, eq. 5), whose network
gives ŝ itself: here ŝ comes from p̂(x_0 | x_t), so that the ratios are those of some law.

Masked: s_y = alpha/(1 - alpha) [y = x_0] at masked places, alpha = exp(-L) the share that is not masked, and
Σ_y ŝ_y = Σ_y s_y = alpha/(1 - alpha). What is left is (Sahoo et al. 2024, eq. 11; Shi et al. 2024, eq. 5)

    ∫_0^1 -alpha'/(1 - alpha) E Σ_{i masked} -log p̂(x_0^i | x_t) dt

so score entropy with an absorbing state is the same bound: its ŝ_y is p̂(y | x_t) times a number that only time decides.
With p̂ independent of t it does not depend on the schedule, and is the mean over all orders of the autoregressive
negative log-likelihood.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction
from diffjax.processes import Categorical, state
from diffjax.processes.classes import split
from diffjax.schedules import broadcast_to, log
from diffjax.special import weigh


def prior_cost(process: Categorical, x0: Array) -> Float[Array, " batch"]:
    """KL(q(x_1 | x_0) ‖ π) in nats."""
    x0 = state(process, x0)
    return _event_sum(process.marginal(x0, 1.0).kl(process.prior(x0.shape)))


def diffusion_cost(
    process: Categorical, predict: Predict, x0: Array, xt: Array, t: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """The integrand at one x_t ~ q(x_t | x_0), in nats: with t uniform on (0, 1), its mean is the integral.

    Where L(1) is infinite t must be below 1. A masked process takes the short form, `masked_cost`.
    """
    if process.masked:
        return masked_cost(process, predict, x0, xt, t)
    x0, xt = state(process, x0), state(process, xt)
    return score_entropy(process, predict(xt, t), x0, xt, t)


def score_entropy(
    process: Categorical, prediction: Prediction, x0: Array, xt: Array, t: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """The integrand as it stands above, for every kind."""
    there, log_s = split(_log_true_rates(process, x0, xt, t))
    possible, log_hat = split(log_reverse_rates(process, prediction, xt, t))
    s, hat = jnp.where(there, jnp.exp(log_s), 0.0), jnp.where(possible, jnp.exp(log_hat), 0.0)
    # A jump that happens and that the model holds impossible costs infinitely much.
    log_ratio = log_s - jnp.where(possible, log_hat, -jnp.inf)
    return _event_sum((hat - s + weigh(s, jnp.where(there, log_ratio, 0.0))).sum(-1))


def masked_cost(
    process: Categorical, predict: Predict, x0: Array, xt: Array, t: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """-alpha'/(1 - alpha) Σ_{masked} -log p̂(x_0 | x_t), in nats.

    Raises:
        InputError: if the process is not masked.
    """
    if not process.masked:
        raise InputError("masked_cost is of masked processes: categorical(..., kind='masked'); use diffusion_cost")
    x0, xt, t = state(process, x0), state(process, xt), as_float(t)
    masked = xt == process.num_classes
    missed = -jnp.take_along_axis(process.beliefs(predict(xt, t), xt, t), x0[..., None], axis=-1)[..., 0]
    alpha, fall = jax.jvp(lambda t: jnp.exp(-process.schedule.integrated_rate(t)), (t,), (jnp.ones_like(t),))
    weight = -fall / jnp.maximum(1.0 - alpha, jnp.finfo(t.dtype).tiny)
    return _event_sum(jnp.where(masked, broadcast_to(weight, missed) * missed, 0.0))


def log_reverse_rates(
    process: Categorical, prediction: Prediction, xt: Array, t: Float[Array, " *batch"]
) -> Float[Array, "batch *event states"]:
    """log of the model's rates of the reverse jumps from x_t to every state, -inf for x_t itself; per unit of time."""
    xt = state(process, xt)
    ratios = process.pushed(process.ratios(prediction, xt, t), _rate(process, xt, t))
    return _with_jumps(process, ratios, xt, t)


def _log_true_rates(process: Categorical, x0: Array, xt: Array, t: Array) -> Array:
    row = process.rows(x0, _rate(process, x0, t))
    here = jnp.take_along_axis(row, xt[..., None], axis=-1)
    return _with_jumps(process, row - here, xt, t)


def _with_jumps(process: Categorical, log_ratios: Array, xt: Array, t: Array) -> Array:
    """log L'(t) M(y, x_t) + log of the ratios, -inf at y = x_t."""
    t = as_float(t)
    slope = jax.jvp(process.schedule.integrated_rate, (t,), (jnp.ones_like(t),))[1]
    found = log(broadcast_to(slope, log_ratios)) + log(process.jumps_to(xt)) + log_ratios
    return jnp.where(jnp.arange(process.num_states) == xt[..., None], -jnp.inf, found)


def _rate(process: Categorical, x: Array, t: Array) -> Array:
    return broadcast_to(process.schedule.integrated_rate(as_float(t)), as_float(x))


def _event_sum(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).sum(1)


def integral(
    process: Categorical, predict: Predict, key: PRNGKeyArray, x0: Array, num_terms: int
) -> Float[Array, " batch"]:
    """The integral over time in nats, estimated at `num_terms` times of each example, one in each of as many strata."""
    x0 = state(process, x0)

    def add(total: Array, stratum: Array) -> tuple[Array, None]:
        time_key, noise_key = jax.random.split(jax.random.fold_in(key, stratum))
        t = (stratum + jax.random.uniform(time_key, (len(x0),))) / num_terms
        t = jnp.minimum(t, 1 - jnp.finfo(t.dtype).eps)
        xt = process.marginal(x0, t).sample(noise_key)
        return total + diffusion_cost(process, predict, x0, xt, t), None

    total, _ = jax.lax.scan(add, jnp.zeros(len(x0)), jnp.arange(num_terms))
    return total / num_terms
