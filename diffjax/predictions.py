"""What a network's output means, and conversion between the meanings.

x_t = alpha x_0 + sigma eps, so one of these and x_t give all the others. Every conversion goes through the pair
(x_0, eps): N in, N out, never N x N functions.

    eps       the noise                                      (Ho et al. 2020)
    x0        the data
    v         alpha eps - sigma x_0                          (Salimans & Ho 2022)
    score     ∇ log p_t(x_t), best estimated by -eps/sigma   (Song & Ermon 2019)
    velocity  dx_t/dt = alpha' x_0 + sigma' eps              (Lipman et al. 2023)
    logits    log-odds of x_0 = 1, for bits: they give an x_0, the probability, and no eps. For classes, one axis more,
              of unnormalised log-probabilities of each class: the x_0 is the mean class

Between two grid points of a chain, the velocity is that of the interpolated schedule. On a grid point, it is that of
the step to the right.

Where alpha = 0, as at t = 1 of `schedules.straight`, x_t is the noise and says nothing about x_0. There x0, v and
velocity still predict x_0; eps and score do not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import pytrees
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.schedules import Schedule, broadcast_to, no_signal_at_end

Kind = Literal["eps", "x0", "v", "score", "velocity", "logits"]
KINDS = ("eps", "x0", "v", "score", "velocity")  # the kinds that give (x_0, eps) of a Gaussian process
Network = Callable[[Array, Array], Array]


@pytrees.register
@dataclass(frozen=True)
class Prediction:
    """An estimate made from x_t.

    value: (batch, *event), of the given `kind`; logits of classes are (batch, *event, K).
    log_var: None, or (batch, *event). Its meaning depends on the `variance` of the reverse kernel. "learned": the
        position of the log-variance between log β̃ (0, "posterior") and log β (1, "forward"; Nichol & Dhariwal 2021,
        eq. 15). "shifted": the number added to the log-odds of β (Sohl-Dickstein et al. 2015, eq. 64).
    """

    value: Float[Array, "*shape"]
    kind: Kind = field(metadata={"static": True})
    log_var: Float[Array, "*shape"] | None = None


Predict = Callable[[Array, Array], Prediction]  # (xt (batch, *event), t (batch,)) -> Prediction


def predictor(kind: Kind, fn: Network, learned_variance: bool = False) -> Predict:
    """Makes a Predict of any function (xt, t) -> array.

    Args:
        kind: what the array is: one of `KINDS`, or "logits".
        fn: takes xt (batch, *event) and t (batch,) in [0, 1]. Losses, bounds and samplers all call it this way.
        learned_variance: fn's last axis holds twice the channels of xt. The second half, in [-1, 1] where trained,
            gives the reverse log-variance: log_var = (out + 1)/2 (Nichol & Dhariwal 2021, eq. 15).

    Raises:
        InputError: on an unknown kind.
    """
    if kind not in (*KINDS, "logits"):
        raise InputError(f"prediction kind must be one of {', '.join(KINDS)}, logits, not {kind!r}")

    def predict(xt: Array, t: Array) -> Prediction:
        out = as_float(fn(xt, t))
        if not learned_variance:
            return Prediction(out, kind)
        value, raw = jnp.split(out, 2, axis=-1)
        return Prediction(value, kind, 0.5 * (raw + 1.0))

    return predict


def eps(fn: Network, learned_variance: bool = False) -> Predict:
    """fn predicts the noise."""
    return predictor("eps", fn, learned_variance)


def x0(fn: Network, learned_variance: bool = False) -> Predict:
    """fn predicts the data."""
    return predictor("x0", fn, learned_variance)


def v(fn: Network, learned_variance: bool = False) -> Predict:
    """fn predicts v = alpha eps - sigma x_0."""
    return predictor("v", fn, learned_variance)


def score(fn: Network, learned_variance: bool = False) -> Predict:
    """fn predicts ∇ log p_t(x_t)."""
    return predictor("score", fn, learned_variance)


def velocity(fn: Network, learned_variance: bool = False) -> Predict:
    """fn predicts dx_t/dt = alpha' x_0 + sigma' eps."""
    return predictor("velocity", fn, learned_variance)


def preconditioned(fn: Network, schedule: Schedule, sigma_data: ArrayLike) -> Predict:
    """x̂_0 = c_skip x_t + c_out F(c_in x_t, c_noise), the preconditioning of Karras et al. (2022, table 1).

        c_in = 1/√(sigma² + alpha² s²)   c_skip = alpha s² c_in²   c_out = sigma s c_in   c_noise = ¼ log(sigma/alpha)

    The paper has alpha = 1. Any other schedule is the paper's for x_t/alpha at the noise level sigma/alpha. For data of
    mean 0 and variance s², the input and the target of F have unit variance. `losses.weighted` with `losses.edm(s)` is
    the plain squared error of F. With s = 1 and alpha² + sigma² = 1, F is -v.

    Args:
        fn: F, a function of c_in x_t (batch, *event) and c_noise (batch,). c_noise is clipped to ±5, as alpha may be 0.
        sigma_data: s, the standard deviation of the data: measure it.
    """

    def predict(xt: Array, t: Array) -> Prediction:
        xt = as_float(xt)
        s = jnp.asarray(sigma_data, xt.dtype)
        alpha, sigma = (broadcast_to(a, xt) for a in (schedule.alpha(t), schedule.sigma(t)))
        c_in = 1.0 / jnp.sqrt(sigma**2 + alpha**2 * s**2)
        c_noise = jnp.clip(-0.125 * schedule.log_snr(t), -5.0, 5.0)
        out = jnp.asarray(fn(c_in * xt, c_noise), xt.dtype)
        return Prediction(alpha * s**2 * c_in**2 * xt + sigma * s * c_in * out, "x0")

    return predict


def logits(fn: Network) -> Predict:
    """fn predicts the log-odds of x_0 = 1, for a binomial process; for a categorical one logits (batch, *event, K)."""
    return predictor("logits", fn)


def pair(prediction: Prediction, schedule: Schedule, xt: Array, t: ArrayLike) -> tuple[Array, Array]:
    """(x_0, eps) with alpha x_0 + sigma eps = x_t, from any kind of prediction, in the floating type of x_t.

    Raises:
        InputError: on a prediction of bits; on a prediction of eps or score where alpha is 0 or may be 0. It may be 0
            at traced times of a schedule with alpha(1) = 0.
    """
    xt = as_float(xt)
    if prediction.kind in ("eps", "score") and no_signal_at_end(schedule) and _may_be_one(t):
        raise InputError(
            f"a prediction of kind {prediction.kind!r} says nothing about x_0 at t = 1, where alpha = 0: predict x0, v"
            " or velocity"
        )
    alpha = broadcast_to(schedule.alpha(t), xt)
    sigma = broadcast_to(schedule.sigma(t), xt)
    value = jnp.asarray(prediction.value, xt.dtype)
    match prediction.kind:
        case "eps":
            return (xt - sigma * value) / alpha, value
        case "x0":
            return value, (xt - alpha * value) / sigma
        case "score":
            return (xt + sigma**2 * value) / alpha, -sigma * value
        case "v":
            power = alpha**2 + sigma**2
            return (alpha * xt - sigma * value) / power, (sigma * xt + alpha * value) / power
        case "velocity":
            alpha_rate, sigma_rate = rates(schedule, t, xt)
            area = alpha * sigma_rate - sigma * alpha_rate
            return (sigma_rate * xt - sigma * value) / area, (alpha * value - alpha_rate * xt) / area
    raise InputError(f"a prediction of kind {prediction.kind!r} has no eps: it is for binomial processes")


def _may_be_one(t: ArrayLike) -> bool:
    return isinstance(t, jax.core.Tracer) or bool((np.asarray(t) >= 1).any())


def unpair(kind: Kind, schedule: Schedule, x0: Array, eps: Array, t: ArrayLike) -> Array:
    """The value of the given kind that belongs to (x_0, eps) at time t: also a network's training target."""
    x0 = as_float(x0)
    eps = jnp.asarray(eps, x0.dtype)
    alpha = broadcast_to(schedule.alpha(t), x0)
    sigma = broadcast_to(schedule.sigma(t), x0)
    match kind:
        case "eps":
            return eps
        case "x0":
            return x0
        case "score":
            return -eps / sigma
        case "v":
            return alpha * eps - sigma * x0
        case "velocity":
            alpha_rate, sigma_rate = rates(schedule, t, x0)
            return alpha_rate * x0 + sigma_rate * eps
    raise InputError(f"the pair (x0, eps) has no value of kind {kind!r}")


def rates(schedule: Schedule, t: ArrayLike, x: Array) -> tuple[Array, Array]:
    """alpha'(t) and sigma'(t), which broadcast against x and have its floating type."""
    t = as_float(t)
    alpha, sigma = (jax.jvp(fn, (t,), (jnp.ones_like(t),))[1] for fn in (schedule.alpha, schedule.sigma))
    return broadcast_to(alpha, x), broadcast_to(sigma, x)


def convert(prediction: Prediction, kind: Kind, process, xt: Array, t: ArrayLike) -> Array:
    """The predicted value as another kind, (batch, *event), of the floating type of x_t.

    `process` is anything with a `schedule`.
    """
    value = jnp.asarray(prediction.value, floating(xt))
    if prediction.kind == kind:
        return value
    if (prediction.kind, kind) == ("logits", "x0"):
        return jax.nn.sigmoid(value) if value.ndim == jnp.ndim(xt) else _mean_class(value)
    return unpair(kind, process.schedule, *pair(prediction, process.schedule, xt, t), t)


def _mean_class(logits: Array) -> Array:
    return (jax.nn.softmax(logits) * jnp.arange(logits.shape[-1], dtype=logits.dtype)).sum(-1)


def clip(predict: Predict, process, low: float = -1.0, high: float = 1.0) -> Predict:
    """Predict with x_0 clipped to the data's range.

    The result is of kind x0, so whoever needs eps recomputes it from the clipped x_0 and the step stays consistent.
    """

    def clipped(xt: Array, t: Array) -> Prediction:
        prediction = predict(xt, t)
        return Prediction(jnp.clip(convert(prediction, "x0", process, xt, t), low, high), "x0", prediction.log_var)

    return clipped


def dynamic_threshold(predict: Predict, process, quantile: float = 0.995) -> Predict:
    """Predict with x_0 clipped to [-s, s] and divided by s = max(1, quantile of |x_0| in the example).

    Strong guidance drives x_0 out of [-1, 1]; this brings it back without saturating (Saharia et al. 2022, section
    2.3). The result is of kind x0.
    """

    def thresholded(xt: Array, t: Array) -> Prediction:
        prediction = predict(xt, t)
        x0 = convert(prediction, "x0", process, xt, t)
        size = jnp.abs(x0).reshape(x0.shape[0], -1)
        s = broadcast_to(jnp.maximum(jnp.quantile(size, quantile, axis=1), 1.0), x0)
        return Prediction(jnp.clip(x0, -s, s) / s, "x0", prediction.log_var)

    return thresholded
