"""The twisted diffusion sampler (Wu et al. 2023, algorithm 1): p(x_0) r(x_0)/Z by weighted particles.

The twist r_t(x_t) > 0 approximates E[r(x_0) | x_t]. Each particle starts at x_1 ~ p with w = r_1(x_1). A step is

    x_s ~ q(x_s | x_t),  the reverse kernel guided by r_t (`guided`), of the same variance
    w  <- w · p(x_s | x_t) r_s(x_s)/(q(x_s | x_t) r_t(x_t)),   r_0 = r itself

Before a step the particles are resampled by their weights (systematic resampling) if their effective number 1/Σ w² is
below a fraction of their number. For every twist E[Ẑ] = E[r(x_0)], over the chain of p at these times. Weighted means
tend to those of p r/Z as the number K of particles grows. A bad twist needs more particles, but it adds no bias.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax import eager
from diffjax.bounds import importance_weighted
from diffjax.conditioning.guidance import plugged, shifted
from diffjax.conditioning.observations import event_sum
from diffjax.conditioning.slopes import LogR
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.predictions import Predict
from diffjax.processes import Gaussian, Variance
from diffjax.samplers.driver import check_times

Triple = tuple[Array, Array, Array]


class Particles(NamedTuple):
    """Weighted draws: E[f(x_0) | y] ≈ Σ_k exp(log_weights_k) f(x_k).

    x: (K, *event).
    log_weights: (K,). The weights sum to 1.
    log_evidence: (), log Ẑ in nats. E[Ẑ] = E[r(x_0)], which is p(y) if r is a normalised likelihood.
    ess: (steps,), the effective number 1/Σ w² before each step. Below threshold · K the particles were resampled.
    """

    x: Float[Array, "particles *event"]
    log_weights: Float[Array, " particles"]
    log_evidence: Float[Array, ""]
    ess: Float[Array, " steps"]


def twisted(
    process: Gaussian,
    predict: Predict,
    key: PRNGKeyArray,
    times: Float[Array, " num_times"],
    shape: tuple[int, ...],
    log_r: Callable[[Array], Array],
    log_twist: LogR | None = None,
    variance: Variance = "posterior",
    threshold: float = 0.5,
) -> Particles:
    """Particles of p(x_0) r(x_0)/Z, where p is the chain that `ancestral(process, variance)` samples at these times.

    The last step, to s = 0, takes the mean of p's kernel, as `ancestral` does. It is one scan. `vmap` over keys, or
    over observations, makes several populations.

    For finite K weighted means are **biased**, because they are ratios. In the Gaussian example of `measurements`, with
    100 steps, the error of the mean of x_1, in posterior standard deviations, is

        particles                1     16     64
        twist `plugged`       0.60   0.15   0.06
        twist "isotropic"    -0.29  -0.02  -0.01

    Args:
        times: descending from 1 to 0, as for `samplers.sample`.
        shape: (particles, *event). All particles are of one example.
        log_r: x_0 (particles, *event) -> (particles,), in nats: `Measurement.log_r`, or another log-likelihood.
        log_twist: (x_t, t) -> (particles,), log r_t up to a constant, with a gradient. For a linear operator
            `expected(process, predict, measurement, "isotropic")`. The default is the paper's, `plugged`.
        variance: of the reverse kernel, as in `ancestral`.
        threshold: in [0, 1]. 0 never resamples, 1 resamples if the weights are not all equal.

    Raises:
        InputError: if the process is not Gaussian, the threshold is not in [0, 1], there are no particles, concrete
            times do not decrease, or a log-likelihood is not one number for each particle.
    """
    if not isinstance(process, Gaussian):
        raise InputError(f"twisted is for Gaussian processes, not for {type(process).__name__}")
    if not isinstance(threshold, jax.core.Tracer) and not 0 <= threshold <= 1:
        raise InputError(f"threshold must be in [0, 1], a fraction of the number of particles, not {threshold}")
    if shape[0] < 1:
        raise InputError(f"shape must be (particles, *event), of at least one particle, not {shape}")
    check_times(times)
    twist = plugged(process, predict, log_r) if log_twist is None else log_twist
    body = partial(_step, process, predict, twist, variance, threshold)

    def run(key: PRNGKeyArray, times: Array) -> Particles:
        prior_key, key = jax.random.split(key)
        x = process.prior(shape).sample(prior_key).astype(times.dtype)
        start = x, jnp.zeros(len(x), x.dtype), jnp.zeros((), x.dtype)
        keys = jax.random.split(key, len(times) - 1)
        (x, log_w, log_z), ess = jax.lax.scan(body, start, (keys, times[:-1], times[1:]))
        log_w = log_w + _one_each(log_r(x), x)
        return Particles(x, jax.nn.log_softmax(log_w), log_z + importance_weighted(log_w), ess)

    return eager.once(run, key, as_float(times))


def effective_number(log_weights: Float[Array, " particles"]) -> Float[Array, ""]:
    """(Σ w)²/Σ w², from 1 to the number of particles."""
    return jnp.exp(2 * jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(2 * log_weights))


def systematic(key: PRNGKeyArray, log_weights: Float[Array, " particles"]) -> Int[Array, " particles"]:
    """Indices drawn by weights. Index k comes K w_k times, rounded up or down, and K w_k times on average."""
    num = len(log_weights)
    below = jnp.cumsum(jax.nn.softmax(log_weights))
    position = (jnp.arange(num, dtype=below.dtype) + jax.random.uniform(key, (), below.dtype)) / num
    # By rounding a position may be 1, which belongs to no particle. The last particle may have no weight.
    position = jnp.minimum(position, 1 - jnp.finfo(below.dtype).epsneg)
    return jnp.searchsorted(below / below[-1], position, side="right").astype(int)


def _step(
    process: Gaussian, predict: Predict, twist: LogR, variance: Variance, threshold: float, carry: Triple, item: Triple
) -> tuple[Triple, Array]:
    """(x_t, log(w/r_t(x_t)), log Ẑ) and (key, t, s) -> the same three at s, and the effective number at t."""
    x, log_w, log_z = carry
    key, t, s = item
    num, (choice_key, noise_key) = len(x), jax.random.split(key)
    batch_t = jnp.broadcast_to(t, num)
    prediction, (value, slope) = predict(x, batch_t), _value_and_slope(twist, x, batch_t)

    log_w = log_w + value
    ess = effective_number(log_w)
    again = ess < threshold * num
    log_z = jnp.where(again, log_z + importance_weighted(log_w), log_z)
    chosen = jnp.where(again, systematic(choice_key, log_w), jnp.arange(num))
    log_w = jnp.where(again, 0.0, log_w)
    x, prediction, value, slope = jax.tree.map(lambda a: a[chosen], (x, prediction, value, slope))

    p = process.reverse(prediction, x, s, t, variance)
    q = process.reverse(shifted(process, prediction, x, batch_t, slope), x, s, t, variance)
    # If the last step is also the first, its variance may be 0. It is not used.
    p, q = (kernel._replace(variance=jnp.where(s == 0, 1.0, kernel.variance)) for kernel in (p, q))
    new = jnp.where(s == 0, p.mean, q.sample(noise_key))
    log_ratio = jnp.where(s == 0, 0.0, event_sum(p.log_prob(new) - q.log_prob(new)))
    return (new, log_w - value + log_ratio, log_z), ess


def _value_and_slope(twist: LogR, x: Array, t: Array) -> tuple[Array, Array]:
    def total(x: Array) -> tuple[Array, Array]:
        value = _one_each(twist(x, t), x)
        return value.sum(), value

    (_, value), slope = jax.value_and_grad(total, has_aux=True)(x)
    return value, slope


def _one_each(value: Array, x: Array) -> Array:
    if jnp.shape(value) != x.shape[:1]:
        raise InputError(
            f"log_r and log_twist must give one number for each particle, {x.shape[:1]}, not {jnp.shape(value)}"
        )
    return jnp.asarray(value, x.dtype)
