"""Convergence diagnostics for draws of several chains (Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021).

Every chain is cut in two halves. A drift within a chain then appears as a disagreement between two. There are M half
chains of N draws, W is the mean of their variances, B/N the variance of their means, and

    var⁺  = (N - 1)/N W + B/N
    R-hat = √(var⁺/W)
    ρ_t   = 1 - (W - mean of the chains' autocovariances at lag t)/var⁺
    ESS   = M N/τ,   τ = -1 + 2 Σ_{k<K} P_k + max(ρ_2K, 0)

where P_k is the running minimum of ρ_2k + ρ_2k+1, and K is the first k whose pair is not positive, or the last k
(Geyer's initial monotone sequence, 1992). τ is at least 1/log₁₀(M N), for chains that are better than independent.

Everything is computed on normal scores of the ranks, ndtri((rank - 3/8)/(M N + 1/4)), which exist for heavy tails, too.
The conventions are those of arviz.ess(method="bulk"), ess(method="tail") and rhat(method="rank"), with one exception.
If all draws are equal they say nothing, and every result is NaN, as in the posterior package of R.

Ranks are integers, of up to 2^30 draws. Single precision has no halves beyond 2^23, and rounds p next to 1 to 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from diffjax import eager
from diffjax.dtypes import AnyArray, as_float
from diffjax.errors import InputError


def ess(draws: Float[AnyArray, "chain draw *event"]) -> Float[Array, "*event"]:
    """Effective sample size of the bulk: as many independent draws estimate the mean of the normal scores as well.

    It is NaN if all draws are equal, as those of a stuck sampler, or if a draw is NaN. 16-bit draws become float32.

    Raises:
        InputError: if the chain or the draw axis is missing, or a chain has fewer than 4 draws.
    """
    return _each(lambda x: _ess(_normal_scores(_halves(x))), draws)


def ess_tail(draws: Float[AnyArray, "chain draw *event"]) -> Float[Array, "*event"]:
    """Effective sample size of the tails: the smaller one of those of I(x ≤ 5% quantile) and I(x ≤ 95% quantile).

    Equal draws, NaN and errors as in `ess`. If I is the same for all draws, which may happen for bits, all draws count.
    """

    def one(x: Array) -> Array:
        ordered = jnp.sort(x.ravel())
        # x is below an interpolated quantile if and only if x ≤ the draw below it. Integers make its rank exact.
        below, above = ordered[(x.size - 1) * 5 // 100], ordered[(x.size - 1) * 95 // 100]
        return jnp.minimum(*(_ess(_halves((x <= quantile).astype(x.dtype))) for quantile in (below, above)))

    return _each(one, draws)


def rhat(draws: Float[AnyArray, "chain draw *event"]) -> Float[Array, "*event"]:
    """Split R-hat: the larger one of location (normal scores) and scale (normal scores of |x - median|).

    It is 1 if all half chains agree. Above 1.01 do not trust the draws. One chain is enough. Equal draws, NaN and
    errors as in `ess`.
    """

    def one(x: Array) -> Array:
        halves = _halves(x)
        ordered = jnp.sort(halves.ravel())
        median = 0.5 * ordered[(halves.size - 1) // 2] + 0.5 * ordered[halves.size // 2]
        folded = jnp.abs(halves - median)
        # fmax, because draws of 0 and 1 in equal parts have equal |x - median|, which say nothing.
        return jnp.fmax(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))

    return _each(one, draws)


def _each(statistic: Callable[[Array], Array], draws: ArrayLike) -> Array:
    """The statistic of (chain, draw) arrays, for every entry of the event."""
    x = as_float(draws)
    if x.ndim < 2 or x.shape[0] < 1 or x.shape[1] < 4:
        raise InputError(
            f"draws must be (chain, draw, *event) with at least 4 draws of a chain, not of shape {x.shape}"
        )

    def one(x: Array) -> Array:
        return jnp.where(jnp.isnan(x).any() | (x.max() == x.min()), jnp.nan, statistic(x))

    def program(x: Array) -> Array:
        return jax.vmap(one, in_axes=-1)(x.reshape(*x.shape[:2], -1)).reshape(x.shape[2:])

    return eager.once(program, x)


def _halves(x: Array) -> Array:
    half = x.shape[1] // 2
    return jnp.concatenate([x[:, :half], x[:, -half:]])


def _normal_scores(x: Array) -> Array:
    flat, index = x.ravel(), jnp.arange(x.size)
    order = jnp.argsort(flat)
    new = flat[order][1:] != flat[order][:-1]
    below = jax.lax.cummax(jnp.where(jnp.append(True, new), index, 0))
    above = jax.lax.cummax(jnp.where(jnp.append(True, new[::-1]), index, 0))[::-1]
    scores = _score(below - above, x.size, x.dtype)
    return jnp.zeros_like(flat).at[order].set(scores, unique_indices=True).reshape(x.shape)


def _score(excess: Int[Array, "..."], num: int, dtype: np.dtype) -> Float[Array, "..."]:
    """ndtri(p) of a draw. `excess` is how many more of the `num` draws are below it than above.

    With N = num its rank is (N + 1 + excess)/2. The result is odd in `excess`. It is computed from the smaller one of p
    and 1 - p, (N - |excess| + 1/4)/(2 N + 1/2), which loses no digits.
    """
    tail = ((num - jnp.abs(excess)).astype(dtype) + 0.25) / (2.0 * num + 0.5)
    return -jnp.sign(excess).astype(dtype) * jax.scipy.special.ndtri(tail)


def _rhat(x: Array) -> Array:
    num = x.shape[1]
    # Shifted, so that the variance of equal draws is 0 and not a rounding error.
    within = (x - x[:, :1]).var(axis=1, ddof=1).mean()
    between = (x - x[0, 0]).mean(axis=1).var(ddof=1)
    return jnp.sqrt((num - 1) / num + between / within)


def _ess(x: Array) -> Array:
    num = x.shape[1]
    covariance = _autocovariance(x).mean(axis=0)
    within = covariance[0] * num / (num - 1)
    between = x.mean(axis=1).var(ddof=1)
    rho = (1.0 - (within - covariance) / (covariance[0] + between)).at[0].set(1.0)

    last = max((num - 3) // 2, 0)  # beyond this pair there are too few products for an estimate
    pairs = rho[0 : 2 * last + 2 : 2] + rho[1 : 2 * last + 2 : 2]
    positive = jnp.cumprod(pairs > 0)
    end = jnp.minimum(positive.sum(), last)
    monotone = jnp.where(jnp.arange(last + 1) < end, jax.lax.cummin(pairs), 0.0)
    # If the last pair is still positive, arviz takes its first half as it is.
    rest = jnp.where(pairs[end] > 0, rho[2 * end], jnp.maximum(rho[2 * end], 0.0))
    tau = -1.0 + 2.0 * monotone.sum() + rest
    size = jnp.asarray(x.size, x.dtype)
    return jnp.where(x.max() == x.min(), size, size / jnp.maximum(tau, 1.0 / jnp.log10(size)))


def _autocovariance(x: Array) -> Array:
    """The autocovariance of every row at lags 0 .. N-1, each divided by N."""
    num = x.shape[1]
    length = 1 << (2 * num - 1).bit_length()  # long enough that no lag wraps round
    spectrum = jnp.abs(jnp.fft.rfft(x - x.mean(axis=1, keepdims=True), n=length)) ** 2
    return jnp.fft.irfft(spectrum, n=length)[:, :num] / num
