"""Exact likelihood along the probability flow (Chen et al. 2018, eq. 8; Song et al. 2021, appendix D.2).

    log p(x) = log π(x_1) + ∫ ∇·v(x_t, t) dt from `start` to 1,   dx/dt = v(x, t),   x_start = x,   π the prior
    ∇·v = Σ_i ∂v_i/∂x_i                              "exact": one derivative per dimension
        = E uᵀ(∂v/∂x)u,  E uuᵀ = I                   "hutchinson": one per probe u, which is held fixed over time

So log p(x) is exact, or unbiased, up to the solver's tolerance. The Jacobian of a score is symmetric. With M the
integral of ∂v/∂x, a Rademacher probe has the variance 2 Σ_{i≠j} M_ij², a Gaussian one 2 Σ_ij M_ij².

A network sees integers k = 0 .. K-1 as 2k/(K-1) - 1. There are two ways to make them continuous. Both bound the
log-probability from below, in expectation over the draws:

    "uniform"  log P(k) ≥ E_u log p(2(k + u - ½)/(K-1) - 1) + D log(2/(K-1)),   u ~ U[0, 1)^D      (Theis et al. 2016)
    "forward"  log P(k) ≥ E_q log p(x_t) + log P(k | x_t) - log q(x_t | k),   t = start, q the forward process

For 8-bit data the offset is log2(2/255) = -6.994 bits per dimension: not the 7 of papers, whose bins are 2/256 wide.
"""

import math
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, PRNGKeyArray

from diffjax import bounds, dtypes
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict
from diffjax.processes import Gaussian, Variance
from diffjax.sde.divergence import Divergence, Probe, probes, with_divergence
from diffjax.sde.equations import LIKELIHOOD_FROM, velocity
from diffjax.sde.flow import check_interval, earliest
from diffjax.sde.ode import MAX_STEPS, solve

Dequantization = Literal["uniform", "forward"]


class Likelihood(NamedTuple):
    """log_prob: (batch,), nats. latents: (batch, *event), x_1. num_evaluations: (), calls of the network."""

    log_prob: Float[Array, " batch"]
    latents: Float[Array, "batch *event"]
    num_evaluations: Array


def likelihood(
    process: Gaussian,
    predict: Predict,
    key: PRNGKeyArray,
    x0: Float[Array, "batch *event"],
    divergence: Divergence | None = None,
    num_probes: int = 1,
    probe: Probe = "rademacher",
    start: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Likelihood:
    """log p(x0) in nats, with the latents and the number of evaluations of the network.

    The batch shares its steps, as `ode` says. An example that is not finite, or whose prediction is not finite, gives
    NaN and does not change the others.

    Args:
        key: for the probes; "exact" does not use it.
        divergence: None is "exact" up to 16 dimensions and "hutchinson" above.
        num_probes: the number of probes to average over; each example has its own.
        start: the time of the data. None is `LIKELIHOOD_FROM`, or the first time of a discrete chain.
        rtol, atol, max_steps: see `flow.transport`; the integral counts as one more entry of an example.

    Raises:
        InputError: on an unknown choice, num_probes below 1, or as `flow.transport`.
    """
    start = earliest(process.schedule, LIKELIHOOD_FROM) if start is None else start
    check_interval(process, start, 1.0)
    x0 = dtypes.as_float(x0)
    directions = probes(key, x0, divergence, num_probes, probe)
    velocity_at = velocity(process, predict)

    def field(t: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, slope, _ = with_divergence(lambda x: velocity_at(x, t), state[0], directions)
        return v, slope

    state = x0, jnp.zeros(x0.shape[:1], x0.dtype)
    (latents, growth), _, num_evaluations = solve(process.schedule, field, state, start, 1.0, rtol, atol, max_steps)
    prior = jax.tree.map(lambda parameter: parameter.astype(x0.dtype), process.prior(x0.shape))
    log_prior = prior.log_prob(latents).reshape(len(x0), -1).sum(1)
    return Likelihood(log_prior + growth, latents, num_evaluations)


def log_prob(
    process: Gaussian,
    predict: Predict,
    key: PRNGKeyArray,
    x0: Float[Array, "batch *event"],
    divergence: Divergence | None = None,
    num_probes: int = 1,
    probe: Probe = "rademacher",
    start: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, " batch"]:
    """`likelihood(...).log_prob`: log p(x0) in nats, (batch,), p the density of the flow at time `start`.

    Raises:
        InputError: as `likelihood`.
    """
    return likelihood(process, predict, key, x0, divergence, num_probes, probe, start, rtol, atol, max_steps).log_prob


def discrete_log_prob(
    process: Gaussian,
    predict: Predict,
    key: PRNGKeyArray,
    levels: Int[Array, "batch *event"],
    num_levels: int,
    dequantization: Dequantization = "uniform",
    variance: Variance = "posterior",
    divergence: Divergence | None = None,
    num_probes: int = 1,
    probe: Probe = "rademacher",
    start: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, " batch"]:
    """A lower bound, in expectation, on log P(levels) in nats: one draw of the noise that makes integers continuous.

    The network sees 2k/(num_levels - 1) - 1, and the offset of that scale is part of the result. P is the model's: from
    the flow's density over a bin ("uniform"), or decoded from x_start ("forward").

    Args:
        levels: integers 0 .. num_levels - 1.
        dequantization: "uniform" suits a network that knows the densities between levels: trained on dequantised data,
            or with noise at `start` as wide as a bin. "forward" suits any network, above all one of a discrete chain.
            It keeps the reconstruction term of `bounds.diffusion`, and the flow replaces the rest.
        variance: of the reverse kernel, for "forward". Its rounded Normal decodes x_start, as `DiscretizedNormal` does
            in `bounds.diffusion`.
        divergence, num_probes, probe, start, rtol, atol, max_steps: as in `likelihood`.

    Raises:
        InputError: if levels are no integers or out of range, or as `likelihood`.
    """
    _check_levels(levels, num_levels)
    levels = jnp.asarray(levels).astype(float)
    start = earliest(process.schedule, LIKELIHOOD_FROM) if start is None else start
    noise_key, probe_key = jax.random.split(key)

    def density(x: Array) -> Array:
        return log_prob(process, predict, probe_key, x, divergence, num_probes, probe, start, rtol, atol, max_steps)

    width = 2.0 / (int(num_levels) - 1)
    match dequantization:
        case "uniform":
            u = jax.random.uniform(noise_key, levels.shape, levels.dtype)
            return density(width * (levels + u - 0.5) - 1.0) + math.prod(levels.shape[1:]) * math.log(width)
        case "forward":
            x0 = width * levels - 1.0
            t = jnp.broadcast_to(jnp.asarray(start, x0.dtype), levels.shape[:1])
            noised = process.marginal(x0, t)
            xt = noised.sample(noise_key)
            decoder = partial(DiscretizedNormal, num_bins=num_levels)
            cost, _ = bounds.reconstruction_cost(process, predict, x0, xt, t, variance, decoder)
            return density(xt) - cost - noised.log_prob(xt).reshape(len(x0), -1).sum(1)
    raise InputError(f"dequantization must be one of {', '.join(get_args(Dequantization))}, not {dequantization!r}")


def _check_levels(levels: Array, num_levels: int) -> None:
    check_num_steps("num_levels", num_levels)
    if num_levels < 2:
        raise InputError(f"num_levels must be at least 2, not {num_levels}")
    if not jnp.issubdtype(levels.dtype, jnp.integer):
        raise InputError(f"levels must be integers 0 .. {num_levels - 1}, not {levels.dtype}: give data before scaling")
    if isinstance(levels, jax.core.Tracer):
        return
    low, high = np.asarray(levels).min(), np.asarray(levels).max()  # not by jnp, which would be traced within jit
    if low < 0 or high >= num_levels:
        raise InputError(f"levels reach from {low} to {high}: they must be in 0 .. num_levels - 1 = {num_levels - 1}")
