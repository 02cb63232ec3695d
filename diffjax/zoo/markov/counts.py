"""The beta-binomial distribution of counts, in float32, with the derivatives for Hamiltonian dynamics.

p(y | m, K) = Π_i B(K m + y_i, K(1 - m) + n_i - y_i) / B(K m, K(1 - m)),    binomial coefficients left out
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

SHIFT = 3  # from here on Stirling's formula has the precision of float32


@jax.custom_jvp
def log_likelihood(table: Float[Array, "*#batch cities 2"], z: Float[Array, "*#batch 2"]) -> Float[Array, "*batch"]:
    """log p(y | m, K) in nats, from rows (y, n) and z = (logit m, log K). In float32 the error is about 1e-4.

    log Γ of such counts is about 10⁶, and the result a few nats. With a = K m and b = K(1 - m), Stirling's formula
    turns Γ(a + y)/Γ(a) Γ(b + n - y)/Γ(b) Γ(K)/Γ(K + n) into a sum without large terms that cancel:

        y log p + (n - y) log(1 - p) - K KL(m ‖ p) + rest(a, y) + rest(b, n - y) - rest(K, n),    p = (a + y)/(K + n)

    It is used at a + 3, b + 3 and K + 6. The recursion Γ(x + 1) = x Γ(x) gives the rest. The table has no derivative.
    """
    _, a, b, k, deaths, survivors, up, down = _parts(table, z)
    at_risk = deaths + survivors
    p = (a + SHIFT + deaths) / (k + 2 * SHIFT + at_risk)
    value = deaths * jnp.log(p) + survivors * jnp.log1p(-p)
    value += (a + SHIFT) * (jnp.log1p(up) - up) + (b + SHIFT) * (jnp.log1p(down) - down)
    value += _rest(a, deaths, SHIFT) + _rest(b, survivors, SHIFT) - _rest(k, at_risk, 2 * SHIFT)
    return value.sum(-1)


@log_likelihood.defjvp
def _log_likelihood_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Written by hand, because derivatives of the score are needed: it compiles in a fifth of the time."""
    _, dz = tangents
    m_rest, a, b, k, deaths, survivors, up, down = _parts(*primals)
    both = _rest_slope(k, deaths + survivors, 2 * SHIFT)
    of_a = jnp.log1p(up) + _rest_slope(a, deaths, SHIFT) - both
    of_b = jnp.log1p(down) + _rest_slope(b, survivors, SHIFT) - both
    score = jnp.stack([(k * m_rest * (of_a - of_b)).sum(-1), (a * of_a + b * of_b).sum(-1)], -1)
    return log_likelihood(*primals), (score * dz).sum(-1)


def _parts(table: Array, z: Array) -> tuple[Array, ...]:
    """m(1 - m), a, b, K, counts, and p/m - 1 and (1 - p)/(1 - m) - 1 with m and p those of a + 3 and b + 3."""
    deaths, at_risk = table[..., 0], table[..., 1]
    k, m, rest = jnp.exp(z[..., 1:]), jax.nn.sigmoid(z[..., :1]), jax.nn.sigmoid(-z[..., :1])
    a, b, survivors = k * m, k * rest, at_risk - deaths
    surplus = (deaths * (b + SHIFT) - survivors * (a + SHIFT)) / (k + 2 * SHIFT + at_risk)
    return m * rest, a, b, k, deaths, survivors, surplus / (a + SHIFT), -surplus / (b + SHIFT)


def _rest(x: Array, count: Array, shift: int) -> Array:
    """log Γ(x + count)/Γ(x) less f(x + shift + count) - f(x + shift), where f(x) = x log x - x."""
    far = x + shift
    factors = jnp.log1p(count[..., None] / (x[..., None] + jnp.arange(shift))).sum(-1)
    return -factors - 0.5 * jnp.log1p(count / far) + _stirling(far + count) - _stirling(far)


def _rest_slope(x: Array, count: Array, shift: int) -> Array:
    """Its derivative in x."""
    far, near = x + shift, x[..., None] + jnp.arange(shift)
    factors = (count[..., None] / (near * (near + count[..., None]))).sum(-1)
    return factors + 0.5 * count / (far * (far + count)) + _stirling_slope(far + count) - _stirling_slope(far)


def _stirling(x: Array) -> Array:
    """log Γ(x) - (x - ½) log x + x - ½ log 2π, with an error of 3e-7 for x ≥ 3."""
    s = 1.0 / (x * x)
    return (1 / 12 - s * (1 / 360 - s / 1260)) / x


def _stirling_slope(x: Array) -> Array:
    s = 1.0 / (x * x)
    return -s * (1 / 12 - s * (1 / 120 - s / 252))
