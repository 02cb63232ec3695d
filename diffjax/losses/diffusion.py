"""Training losses of diffusion models, per example and unreduced.

    simple    E ‖eps - eps̃(x_t, t)‖²                         (Ho et al. 2020, eq. 14)
    weighted  E w(λ_t) ‖x_0 - x̂_0(x_t, t)‖²                  (weights.py)

              for any kind of prediction, because errors at one x_t are proportional to each other:
              |x_0 err|² = (sigma/alpha)² |eps err|² = (sigma/(alpha² + sigma²))² |v err|²
                         = (sigma²/alpha)² |score err|² = (sigma/(alpha sigma' - sigma alpha'))² |velocity err|²

    flow_matching  E ‖dx_t/dt - û(x_t, t)‖²                  (Lipman et al. 2023, eq. 9)
    vlb       T L_t for a random t: unbiased for the bound without its constant prior term
    hybrid    simple + 0.001 vlb, the mean held fixed in vlb   (Nichol & Dhariwal 2021, eq. 16)

A loss takes its times as an argument; `time_sampling` draws them. Its key is one key, or one per example
(`randomness`).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.bounds import Decoder, bits_per_dim, least_steps, reconstruction_cost, step_cost
from diffjax.distributions import Distribution, Normal
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.losses.weights import Weight
from diffjax.predictions import Kind, Predict, Prediction, convert, rates, unpair
from diffjax.processes import Gaussian, Process, Variance, state
from diffjax.randomness import Keys, normal
from diffjax.schedules import Schedule, broadcast_to, sqrt


def simple(
    process: Gaussian,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    kind: Kind = "eps",
) -> Float[Array, " batch"]:
    """Mean over the event of ‖target - prediction‖² at times t, both as `kind` (Ho et al. 2020, eq. 14).

    On N(0, I) data the least possible value at t is alpha_bar_t for eps.
    """
    x0 = as_float(x0)
    t = jnp.asarray(t, x0.dtype)
    return _squared_error(process, predict, x0, normal(key, x0.shape, x0.dtype), t, kind)


def flow_matching(
    process: Gaussian,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    source: Float[Array, "batch *event"] | None = None,
) -> Float[Array, " batch"]:
    """Mean over the event of ‖u - û(x_t, t)‖², u = alpha' x_0 + sigma' source (Lipman et al. 2023, eq. 9).

    The minimiser û = E[u | x_t] has a flow that carries the distribution of the source to that of the data. For
    x_0 ~ N(0, s² I) on the straight schedule with t uniform, the minimum is s π/2.

    Args:
        source: x_1, paired with x_0; None draws eps ~ N(0, I). Only noise that is independent of x_0 makes the
            prediction a score, too.

    Raises:
        InputError: if the source is not of the shape of the data.
    """
    x0 = as_float(x0)
    t = jnp.asarray(t, x0.dtype)
    if source is not None and jnp.shape(source) != x0.shape:
        raise InputError(f"the source of shape {jnp.shape(source)} must be of the shape of the data, {x0.shape}")
    end = normal(key, x0.shape, x0.dtype) if source is None else jnp.asarray(source, x0.dtype)
    return _squared_error(process, predict, x0, end, t, "velocity")


def weighted(
    process: Gaussian,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    weight: Weight,
    kind: Kind = "eps",
) -> Float[Array, " batch"]:
    """weight(log_snr(t)) times the mean over the event of ‖x_0 - x̂_0‖²: one loss, whichever kind the network predicts.

    Args:
        weight: e.g. of `min_snr` or `p2`.
        kind: the kind in which the error is computed. The network's own kind loses least to rounding.
    """
    x0 = as_float(x0)
    t = jnp.asarray(t, x0.dtype)
    loss = simple(process, predict, key, x0, t, kind)
    on_x0 = broadcast_to(weight(process.schedule.log_snr(t)), loss)
    return on_x0 * broadcast_to(_x0_error(process.schedule, kind, t), loss) * loss


def learned_uncertainty(loss: Float[Array, " batch"], log_var: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """loss/e^u + u: all times contribute equally to the gradient, whatever their loss (Karras et al. 2024, eq. 16).

    Args:
        log_var: u(t), a network of the time alone, trained together with the main one. It tends to log E[loss | t].
    """
    return loss * jnp.exp(-log_var) + log_var


def vlb(
    process: Process,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    t: Float[Array, " batch"],
    num_steps: int,
    variance: Variance = "posterior",
    decoder: Decoder | None = None,
) -> Float[Array, " batch"]:
    """num_steps times the bound's cost of the step (s, t), in nats; at s = 0 that cost is the reconstruction.

    With (s, t) uniform over the chain's steps, the mean is the whole bound except the prior term. Only a learned
    schedule changes that term.

    Raises:
        InputError: if num_steps = 1 and a Gaussian process has a variance other than "forward": β̃ does not exist.
    """
    if num_steps < least_steps(process, variance):
        raise InputError(f"num_steps={num_steps}: variance={variance!r} needs at least 2 steps, 'forward' 1")
    x0 = state(process, x0)
    s, t = (jnp.asarray(time, floating(x0)) for time in (s, t))
    xt = draw(process.marginal(x0, t), key)
    prediction = predict(xt, t)  # one evaluation serves both costs

    def fixed(_: Array, __: Array) -> Prediction:
        return prediction

    # The KL does not exist at s = 0, nor the reconstruction's β̃ at t = 1. Evaluate the cost that is not used at a time
    # where it is finite: otherwise its gradient would be 0 · inf.
    inner, _ = step_cost(process, fixed, x0, xt, jnp.where(s == 0, 0.5 * t, s), t, variance)
    first, _ = reconstruction_cost(process, fixed, x0, xt, jnp.where(s == 0, t, 0.5 * t), variance, decoder)
    return num_steps * jnp.where(s == 0, first, inner)


def hybrid(
    process: Gaussian,
    predict: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    t: Float[Array, " batch"],
    num_steps: int,
    decoder: Decoder | None = None,
    weight: float = 0.001,
) -> Float[Array, " batch"]:
    """simple + weight · vlb in bits per dimension, where vlb trains the learned variance and not the mean.

    Both use the same noise and one evaluation of the network (Nichol & Dhariwal 2021, section 3.1). vlb is in bits per
    dimension as in their code, so 0.001 has the same meaning.

    Raises:
        InputError: if num_steps = 1, as `vlb`.
    """
    x0 = as_float(x0)
    t = jnp.asarray(t, x0.dtype)
    eps = normal(key, x0.shape, x0.dtype)
    prediction = predict(_noised(process, x0, eps, t), t)
    held = replace(prediction, value=jax.lax.stop_gradient(prediction.value))
    bound = vlb(process, lambda *_: held, key, x0, s, t, num_steps, "learned", decoder)
    return simple(process, lambda *_: prediction, key, x0, t) + weight * bits_per_dim(bound, x0.shape[1:])


def draw(q: Distribution, key: Keys) -> Array:
    """A draw from q, with one key or one key per example. A draw from a Normal is differentiable in its parameters."""
    if isinstance(q, Normal):
        return q.mean + sqrt(q.variance) * normal(key, q.shape, q.mean.dtype)
    return q.sample(key)


def _squared_error(process: Gaussian, predict: Predict, x0: Array, eps: Array, t: Array, kind: Kind) -> Array:
    xt = _noised(process, x0, eps, t)
    error = unpair(kind, process.schedule, x0, eps, t) - convert(predict(xt, t), kind, process, xt, t)
    return _event_mean(error**2)


def _noised(process: Gaussian, x0: Array, eps: Array, t: Array) -> Array:
    q = process.marginal(x0, t)
    return q.mean + sqrt(q.variance) * eps


def _x0_error(schedule: Schedule, kind: Kind, t: Array) -> Array:
    """|x_0 err|²/|err of this kind|² at one x_t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    match kind:
        case "eps":
            return (sigma / alpha) ** 2
        case "x0":
            return jnp.ones_like(alpha)
        case "v":
            return (sigma / (alpha**2 + sigma**2)) ** 2
        case "score":
            return (sigma**2 / alpha) ** 2
        case "velocity":
            alpha_rate, sigma_rate = rates(schedule, t, alpha)
            return (sigma / (alpha * sigma_rate - sigma * alpha_rate)) ** 2
    raise InputError(f"a prediction of kind {kind!r} has no squared error of x_0 of a Gaussian process")


def _event_mean(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).mean(1)
