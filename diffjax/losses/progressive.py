"""Progressive distillation (Salimans & Ho 2022): one step of the student does what two of the teacher do.

Two DDIM steps of the teacher lead from x_t over the time m to x_s. One DDIM step leads to the same x_s if its estimate
x̃ of x_0 satisfies x_s = alpha_s x̃ + sigma_s (x_t - alpha_t x̃)/sigma_t, that is

    x̃ = (x_s - (sigma_s/sigma_t) x_t)/(alpha_s - (sigma_s/sigma_t) alpha_t)                              (appendix G)

In κ = alpha/sigma a DDIM step is (x/sigma)_s = (x/sigma)_t + (κ_s - κ_t) x̂_0. So x̃ is a weighted mean of the teacher's
two estimates. It is computed as this mean, because the quotient loses its digits where alpha is small:

    x̃ = (1 - w) x̂_0(x_t) + w x̂_0(x_m),   w = (κ_s - κ_m)/(κ_s - κ_t)

    loss   w(log-SNR) mean (x̃ - x̂_0)²,   w = max(SNR, 1), "truncated SNR"                               (section 4)

The network should predict v: eps says nothing about x_0 where alpha = 0, and one-step sampling is that case. There the
weight is 1 and everything is finite. At s = 0, w = 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.losses.diffusion import draw
from diffjax.losses.weights import Weight, truncated_snr
from diffjax.predictions import Predict, convert, pair
from diffjax.processes import Gaussian
from diffjax.randomness import Keys
from diffjax.schedules import broadcast_to

TRUNCATED = truncated_snr()


def progressive(
    process: Gaussian,
    predict: Predict,
    teacher: Predict,
    key: Keys,
    x0: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    m: Float[Array, " batch"],
    t: Float[Array, " batch"],
    weight: Weight = TRUNCATED,
) -> Float[Array, " batch"]:
    """The weighted squared error of the student's x̂_0 at x_t from the target x̃ of the teacher's two steps.

    Args:
        predict, teacher: student and teacher, of any kind. No gradient goes to the teacher.
        s, m, t: s < m < t. The student steps from t to s, the teacher from t over m to s.
        weight: the weight of the squared error of x_0.

    Raises:
        InputError: on times that do not ascend.
    """
    times = [np.asarray(time) for time in (s, m, t) if not isinstance(time, jax.core.Tracer)]
    if len(times) == 3 and not ((times[0] < times[1]) & (times[1] < times[2])).all():
        raise InputError("s, m and t must ascend in every example: the teacher steps from t over m down to s")
    x0 = as_float(x0)
    s, m, t = (jnp.asarray(time, x0.dtype) for time in (s, m, t))
    xt = draw(process.marginal(x0, t), key)
    target = jax.lax.stop_gradient(two_steps(process, teacher, xt, s, m, t))
    error = target - convert(predict(xt, t), "x0", process, xt, t)
    return weight(process.schedule.log_snr(t)) * (error**2).reshape(len(x0), -1).mean(1)


def two_steps(
    process: Gaussian,
    teacher: Predict,
    xt: Float[Array, "batch *event"],
    s: Float[Array, " batch"],
    m: Float[Array, " batch"],
    t: Float[Array, " batch"],
) -> Float[Array, "batch *event"]:
    """x̃, the estimate of x_0 whose one DDIM step from x_t ends where two of the teacher's end."""
    schedule = process.schedule
    (alpha_s, sigma_s), (alpha_m, sigma_m), (alpha_t, sigma_t) = (
        (broadcast_to(schedule.alpha(time), xt), broadcast_to(schedule.sigma(time), xt)) for time in (s, m, t)
    )
    first, eps = pair(teacher(xt, t), schedule, xt, t)
    xm = alpha_m * first + sigma_m * eps
    second = convert(teacher(xm, m), "x0", process, xm, m)
    w = (alpha_s - sigma_s * alpha_m / sigma_m) / (alpha_s - sigma_s * alpha_t / sigma_t)
    return first + w * (second - first)
