"""The building blocks of densities and KLs, in forms that do not cancel in single precision.

    excess(a, b)             u - 1 - log u,  u = a/b                           cost of a ratio: 0 at u = 1, else above
    stirling(a)              r(a) = log Γ(a) - [(a - ½) log a - a + ½ log 2π]
    stirling_divergence(y, x)      r(y) - r(x) - (y - x) r'(x)                 Bregman divergence of r, at least 0

For large shapes a, formulas with log Γ and its derivatives are differences of large numbers, while r is about 1/(12 a).
r is computed from r(a) = r(a + 1) + c(a), c(a) = (a + ½) log(1 + 1/a) - 1, and from Stirling's series from a + 8 on
(Abramowitz & Stegun 6.1.40). Its derivatives are those of these sums.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LOG_2PI = 1.8378770664093453
SHIFT = 8  # steps of the recurrence, after which seven terms of the series are good to double precision
SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)  # of 1/a, 1/a³, ...
NEAR = 0.2  # |d| below which d - log(1 + d) is a series: 8 terms for double precision


@jax.custom_jvp
def excess(a: Array, b: Array) -> Array:
    """u - 1 - log u of the ratio u = a/b of positive numbers of one type."""
    d, ratio = (a - b) / b, a / b
    fits = (ratio >= jnp.finfo(ratio.dtype).tiny) & jnp.isfinite(ratio)
    log_ratio = jnp.where(fits, jnp.log(ratio), jnp.log(a) - jnp.log(b))
    return jnp.where(jnp.abs(d) < NEAR, minus_log1p(d), d - log_ratio)


@excess.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    return excess(a, b), (a - b) / b * (da / a - db / b)  # the squares of small a and b would underflow


def minus_log1p(d: Array) -> Array:
    """d - log(1 + d), for d > -1."""
    near = jnp.abs(d) < NEAR
    small = jnp.where(near, d, 0.0)
    s = small / (2 + small)  # log(1 + d) = 2 artanh s, and d - 2s = s d
    series = jnp.polyval(np.array([1 / (2 * k + 3) for k in range(8)][::-1], d.dtype), s * s)
    return jnp.where(near, s * (small - 2 * s * s * series), d - jnp.log1p(jnp.where(near, 0.0, d)))


def stirling(a: Array) -> Array:
    """r(a), a > 0."""
    each = a[..., None] + jnp.arange(SHIFT, dtype=a.dtype)
    p = 1 / (a + SHIFT)
    series = p * jnp.polyval(np.array(SERIES[::-1], a.dtype), p * p)
    return ((each + 0.5) * jnp.log1p(1 / each) - 1).sum(-1) + series


def stirling_divergence(y: Array, x: Array) -> Array:
    """r(y) - r(x) - (y - x) r'(x), for y and x > 0 of one type."""
    steps = jnp.arange(SHIFT, dtype=x.dtype)
    delta, each_y, each_x = (y - x)[..., None], y[..., None] + steps, x[..., None] + steps
    # The divergence of c. c(y) - c(x) contains log(1 - e), e below; near 0 the first-order terms are cancelled by hand.
    e = delta / each_y / (each_x + 1)
    close = 0.5 * (delta / each_x) * (delta / each_y) / (each_x + 1) - (each_y + 0.5) * minus_log1p(-e)
    near = jnp.abs(e) < NEAR
    apart = (each_y + 0.5) * jnp.log1p(jnp.where(near, 0.0, -e)) + delta / each_x * (each_x + 0.5) / (each_x + 1)
    # The divergence of a^-n is (y - x)² p² q Σ_{j<n} (j + 1) p^j q^(n-1-j), p = 1/x, q = 1/y.
    p, q = 1 / (x + SHIFT), 1 / (y + SHIFT)
    inner, power, total = jnp.ones_like(p * q), p, jnp.zeros_like(p * q)
    for n in range(1, 2 * len(SERIES)):
        if n % 2:
            total = total + SERIES[n // 2] * inner
        inner, power = q * inner + (n + 1) * power, power * p
    return jnp.where(near, close, apart).sum(-1) + ((y - x) * p) ** 2 * q * total


def log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0 without cancellation (Mächler 2012)."""
    near = x > -0.6931472
    return jnp.where(near, jnp.log(-jnp.expm1(jnp.where(near, x, -1.0))), jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))


def weigh(p: Array, log_q: Array) -> Array:
    """p log q with 0 log 0 = 0, in value and gradient."""
    nothing = (p == 0) & ~jnp.isfinite(log_q)
    return jnp.where(nothing, 0.0, p) * jnp.where(nothing, 0.0, log_q)
