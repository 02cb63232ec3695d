"""Bounds on log p(x), in nats per example, unreduced.

Diffusion (Sohl-Dickstein et al. 2015; Ho et al. 2020, eq. 5), on a grid 0 = t_0 < t_1 < ... < t_T = 1:

    -log p(x_0) ≤ KL(q(x_{t_T} | x_0) ‖ p(x_{t_T}))                                             L_T, prior
                + Σ_{i=2..T} E KL(q(x_{t_{i-1}} | x_{t_i}, x_0) ‖ p(x_{t_{i-1}} | x_{t_i}))     L_{i-1}, diffusion
                + E -log p(x_0 | x_{t_1})                                                       L_0, reconstruction

The weight w of one trajectory x_1..x_T ~ q(. | x_0) (Sohl-Dickstein et al. 2015, eq. 9); -E log w is the bound above:

    p(x_0) = E w,    w = π(x_T) Π_{t=1..T} p(x_{t-1} | x_t) / q(x_t | x_{t-1})

Importance weighting (Burda et al. 2016): log p(x) ≥ E log (1/K) Σ_k w_k.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.distributions import Distribution
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.predictions import Predict, Prediction, convert
from diffjax.processes import Binomial, Categorical, Process, Variance, state
from diffjax.schedules import check_times

Decoder = Callable[[Array, Array], Distribution]


class DiffusionTerms(NamedTuple):
    """The costs that make up the bound, in nats: `total` is an upper bound on -log p(x_0).

    prior: (batch,), L_T.
    diffusion: (T-1, batch), row i is L_{i+1}, the cost of x_{t_{i+1}} given x_{t_{i+2}}.
    reconstruction: (batch,), L_0.
    squared_error: (T, batch), ‖x_0 - x̂_0(x_t)‖² at t_1..t_T, for the rate-distortion curve.
    """

    prior: Float[Array, " batch"]
    diffusion: Float[Array, "terms batch"]
    reconstruction: Float[Array, " batch"]
    squared_error: Float[Array, "terms+1 batch"]

    @property
    def total(self) -> Float[Array, " batch"]:
        return self.prior + self.diffusion.sum(0) + self.reconstruction


def diffusion(
    process: Process,
    predict: Predict,
    key: PRNGKeyArray,
    x0: Float[Array, "batch *event"],
    times: Float[Array, " num_times"],
    variance: Variance = "posterior",
    decoder: Decoder | None = None,
    num_terms: int | None = None,
) -> DiffusionTerms:
    """The bound of a diffusion model, with one draw of x_t per term. It is one scan: memory does not grow with T.

    Args:
        times: the grid from 0 to 1, in either order. `schedule.times` is the whole chain. Any sub-sequence is a
            shorter chain with a looser bound of its own.
        variance: of the reverse kernel, see `Gaussian.reverse`.
        decoder: (mean, variance) -> p(x_0 | x_{t_1}). None is the reverse kernel itself, for continuous data and bits;
            `distributions.DiscretizedNormal` gives log-probabilities of 8-bit pixels in [-1, 1]. With "forward", the
            decoder gets the variance β̃ of the step above, as in the code of Ho et al. (Their linear chain has
            β̃_2 = 5.45e-5 there; β_1 = 1e-4 would cost 0.1 bits/dim.) If the grid has only one step, it gets β.
        num_terms: None sums all of L_1..L_{T-1}. A number draws that many terms for each example, one in each of as
            many strata of the chain, and scales them so that their sum is an unbiased estimate. The rows of
            `diffusion` are then these terms, each entry at a time of its own; `squared_error` has one row more.
            T-1 or more is the same as None.

    Raises:
        InputError: if the grid has no step, or is not in [0, 1], or has one step and the process is Gaussian with a
            variance other than "forward" (β̃ does not exist).
    """
    num_steps = _check_grid(process, times, variance)
    if num_terms is not None and num_terms < 1:
        raise InputError(f"num_terms must be at least 1 or None, not {num_terms}")
    if num_terms is not None and num_terms >= num_steps - 1:
        num_terms = None  # the whole sum costs no more and has no variance

    def run(key: PRNGKeyArray, x0: Array, times: Array) -> DiffusionTerms:
        batch = x0.shape[:1]
        first_key, scan_key = jax.random.split(key)

        def term(_: None, step: Array) -> tuple[None, tuple[Array, Array]]:
            step_key = jax.random.fold_in(scan_key, step)
            index = 2 + jnp.broadcast_to(step, batch)
            if num_terms is not None:
                step_key, index_key = jax.random.split(step_key)
                u = (step.astype(times.dtype) + jax.random.uniform(index_key, batch, times.dtype)) / num_terms
                index = 2 + jnp.minimum((u * (num_steps - 1)).astype(int), num_steps - 2)
            s, t = times[index - 1], times[index]
            xt = process.marginal(x0, t).sample(step_key)
            return None, step_cost(process, predict, x0, xt, s, t, variance)

        rows = num_steps - 1 if num_terms is None else num_terms
        _, (costs, errors) = jax.lax.scan(term, None, jnp.arange(rows))
        if num_terms is not None:
            costs = costs * ((num_steps - 1) / num_terms)

        t = jnp.broadcast_to(times[1], batch)
        x1 = process.marginal(x0, t).sample(first_key)
        first, first_error = reconstruction_cost(process, predict, x0, x1, t, variance, decoder)
        last = process.marginal(x0, times[-1]).kl(_prior(process, x0))
        return DiffusionTerms(_event_sum(last), costs, first, jnp.concatenate([first_error[None], errors]))

    x0 = state(process, x0)
    return eager.once(run, key, x0, jnp.sort(jnp.asarray(times, floating(x0))))


def step_cost(
    process: Process, predict: Predict, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance
) -> tuple[Array, Array]:
    """KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) at one x_t in nats, and ‖x_0 - x̂_0‖²; both (batch,). Needs s > 0."""
    x0, xt, t = _same_type(process, x0, xt, t)
    prediction = predict(xt, t)
    kl = process.posterior(x0, xt, s, t).kl(process.reverse(prediction, xt, s, t, variance))
    return _event_sum(kl), _event_sum((x0 - convert(prediction, "x0", process, xt, t)) ** 2)


def reconstruction_cost(
    process: Process,
    predict: Predict,
    x0: Array,
    xt: Array,
    t: ArrayLike,
    variance: Variance,
    decoder: Decoder | None = None,
) -> tuple[Array, Array]:
    """-log p(x_0 | x_t) at one x_t in nats, and ‖x_0 - x̂_0‖²; both (batch,)."""
    x0, xt, t = _same_type(process, x0, xt, t)
    prediction = predict(xt, t)
    last = _kernel(process, prediction, xt, jnp.zeros_like(t), t, variance, decoder)
    return -_event_sum(last.log_prob(x0)), _event_sum((x0 - convert(prediction, "x0", process, xt, t)) ** 2)


def trajectory_log_weight(
    process: Process,
    predict: Predict,
    key: PRNGKeyArray,
    x0: Float[Array, "batch *event"],
    times: Float[Array, " num_times"],
    variance: Variance = "posterior",
    decoder: Decoder | None = None,
) -> Float[Array, " batch"]:
    """log w of one trajectory x_1..x_T ~ q(. | x_0) for each example, in nats; one scan, which keeps one x_t at a time.

    E w = p(x_0) exactly, and E log w is minus the expected total of `diffusion` (Sohl-Dickstein et al. 2015, eq. 9).
    K trajectories give a lower bound between the two, which rises with K to log p(x_0):

        importance_weighted(jax.vmap(lambda key: trajectory_log_weight(process, predict, key, x0, times))(keys))

    Args:
        times, variance, decoder: as in `diffusion`.

    Raises:
        InputError: as `diffusion`.
    """
    num_steps = _check_grid(process, times, variance)

    def run(key: PRNGKeyArray, x0: Array, times: Array) -> Array:
        def step(xs: Array, index: ArrayLike, decoder: Decoder | None = None) -> tuple[Array, Array]:
            s, t = times[index], times[index + 1]
            forward = process.transition(xs, s, t)
            xt = forward.sample(jax.random.fold_in(key, index))
            prediction = predict(xt, jnp.broadcast_to(t, x0.shape[:1]))
            back = _kernel(process, prediction, xt, s, t, variance, decoder)
            # The two almost cancel, and their sums over the chain would be large: take the difference before any sum.
            return xt, _event_sum(back.log_prob(xs) - forward.log_prob(xt))

        def later(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
            xs, log_weight = carry
            xt, ratio = step(xs, index)
            return (xt, log_weight + ratio), None

        (last, log_weight), _ = jax.lax.scan(later, step(x0, 0, decoder), jnp.arange(1, num_steps))
        return log_weight + _event_sum(_prior(process, x0).log_prob(last))

    x0 = state(process, x0)
    return eager.once(run, key, x0, jnp.sort(jnp.asarray(times, floating(x0))))


def rate_distortion(terms: DiffusionTerms, event_shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Progressive lossy coding: what x̂_0 costs and how good it is as x_1 .. x_{t_1} arrive (Ho et al. 2020, 4.3).

    Args:
        terms: from `diffusion` with num_terms=None.

    Returns:
        Rate in bits per dimension and root-mean-square error in units of the data, both (T,), means over the batch.
        Entry i is for a receiver who has x_{t_{i+1}}: both are in the order of the grid.
    """
    later = jnp.cumsum(terms.diffusion[::-1], axis=0)[::-1]
    rate = terms.prior + jnp.concatenate([later, jnp.zeros_like(later[:1])])
    mean_square = terms.squared_error.mean(1) / math.prod(event_shape)
    return bits_per_dim(rate.mean(1), event_shape), jnp.sqrt(mean_square)


def bits_per_dim(nats: ArrayLike, event_shape: tuple[int, ...]) -> Array:
    """Nats per example -> bits per dimension of an event of this shape."""
    return jnp.asarray(nats) / (math.prod(event_shape) * math.log(2.0))


def importance_weighted(log_weights: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """log (1/K) Σ_k w_k over `axis`, in nats: the value of the bound itself (Burda et al. 2016, eq. 8)."""
    return jax.nn.logsumexp(as_float(log_weights), axis=axis) - math.log(log_weights.shape[axis])


def least_steps(process: Process, variance: Variance) -> int:
    """The smallest number of steps of a chain. It is 2 where the first step takes its β̃ from the second."""
    return 1 if variance == "forward" or isinstance(process, Binomial | Categorical) else 2


def _check_grid(process: Process, times: Array, variance: Variance) -> int:
    """The number of steps."""
    least, found = least_steps(process, variance) + 1, jnp.shape(times)[0]
    if found < least:
        raise InputError(f"times has {found} entries: variance={variance!r} needs at least {least}")
    check_times("times", times)
    return found - 1


def _kernel(
    process: Process,
    prediction: Prediction,
    xt: Array,
    s: Array,
    t: Array,
    variance: Variance,
    decoder: Decoder | None,
) -> Distribution:
    """p(x_s | x_t), or the distribution that the decoder makes of it."""
    kernel = process.reverse(prediction, xt, s, t, variance)
    if decoder is None:
        return kernel
    small = kernel.variance
    if variance == "forward":
        small = process.reverse(prediction, xt, s, t, "posterior").variance
    return decoder(kernel.mean, jnp.where(small > 0, small, kernel.variance))


def _prior(process: Process, x: Array) -> Distribution:
    """The prior of the shape and floating type of x."""
    return jax.tree.map(lambda leaf: leaf.astype(floating(x)), process.prior(x.shape))


def _same_type(process: Process, x0: Array, xt: Array, t: ArrayLike) -> tuple[Array, Array, Array]:
    """x_0 and x_t as the process has them, and t in their floating type, of shape (batch,), as networks take it."""
    x0 = state(process, x0)
    return x0, jnp.asarray(xt, x0.dtype), jnp.broadcast_to(jnp.asarray(t, floating(x0)), x0.shape[:1])


def _event_sum(x: Array) -> Array:
    return x.reshape(x.shape[0], -1).sum(1)
