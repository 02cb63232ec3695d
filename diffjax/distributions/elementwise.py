"""The distributions of numbers. See `diffjax.distributions` for their formulas."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Float

from diffjax import pytrees, randomness
from diffjax.dtypes import alike, as_float, floating
from diffjax.randomness import Keys
from diffjax.special import LOG_2PI, excess, log1mexp, stirling, stirling_divergence, weigh

LARGE = 1e4  # above this concentration, the derivative of a draw comes from an expansion
NARROW = 0.1  # below this width in standard deviations, the probability of a bin comes from a series


class Distribution(Protocol):
    """What a step of a Markov chain is made of. All methods are elementwise; log-probabilities are in nats.

    `sample` takes one key, or one per example of the first axis (`randomness`).
    """

    @property
    def mean(self) -> Array: ...
    @property
    def variance(self) -> Array: ...
    def sample(self, key: Keys) -> Array: ...
    def log_prob(self, x: Array) -> Array: ...
    def kl(self, other: Self) -> Array: ...
    def entropy(self) -> Array: ...


class Normal(NamedTuple):
    """N(mean, variance), elementwise. `mean` and `variance` broadcast against each other."""

    mean: Float[Array, "*#shape"]
    variance: Float[Array, "*#shape"]

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(jnp.shape(self.mean), jnp.shape(self.variance))

    def sample(self, key: Keys) -> Float[Array, "*shape"]:
        mean, variance = alike(*self)
        return mean + jnp.sqrt(variance) * randomness.normal(key, self.shape, mean.dtype)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        x, mean, variance = alike(x, *self)
        # Divide before squaring: the square of a number below 1e-19 or above 1e19 leaves single precision.
        return -0.5 * (((x - mean) / jnp.sqrt(variance)) ** 2 + jnp.log(variance) + LOG_2PI)

    def kl(self, other: "Normal") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        m1, v1, m2, v2 = alike(*self, *other)
        return 0.5 * (((m1 - m2) / jnp.sqrt(v2)) ** 2 + excess(v1, v2))

    def entropy(self) -> Float[Array, "*shape"]:
        _, variance = alike(*self)
        return jnp.broadcast_to(0.5 * (jnp.log(variance) + LOG_2PI + 1.0), self.shape)


class Gamma(NamedTuple):
    """Gamma(concentration, rate), elementwise, on x > 0.

    A draw that underflows, which may happen for concentrations below 0.1, becomes the smallest positive normal number.
    The density is finite there, unlike at 0. log_prob(0) is a limit, and gradients treat 0 as outside the support.
    """

    concentration: Float[Array, "*#shape"]
    rate: Float[Array, "*#shape"]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        a, b = alike(*self)
        return a / b

    @property
    def variance(self) -> Float[Array, "*shape"]:
        a, b = alike(*self)
        return a / b / b

    def sample(self, key: Keys) -> Float[Array, "*shape"]:
        a, b = jnp.broadcast_arrays(*alike(*self))
        if randomness.per_example(key):
            return jax.vmap(lambda key, a, b: Gamma(a, b).sample(key))(key, a, b)
        large = a > LARGE
        x = jax.random.gamma(key, jnp.where(large, jax.lax.stop_gradient(a), a), a.shape, a.dtype)
        # For large a jax's implicit derivative is rounding noise. The quantile of Φ(z) is a + z √a + (z² - 1)/3 + ...
        fixed_x, fixed = jax.lax.stop_gradient((x, jnp.where(large, a, LARGE)))
        off = fixed_x - fixed
        slope = 1 + (off - (off / fixed * off - 1) / 3) / (2 * fixed)
        x = x + jnp.where(large, slope * (a - jax.lax.stop_gradient(a)), 0.0)
        return jnp.maximum(x / b, jnp.finfo(x.dtype).tiny)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        x, a, b = alike(x, *self)
        outside = (x <= 0) | (x == jnp.inf)
        inner = jnp.where(outside, 1.0, x)
        inside = -a * excess(inner, a / b) - jnp.log(inner) + 0.5 * (jnp.log(a) - LOG_2PI) - stirling(a)
        at_zero = jnp.where(a == 1, jnp.log(b), jnp.where(a < 1, jnp.inf, -jnp.inf))
        return jnp.where(outside, jnp.where(x == 0, at_zero, -jnp.inf), inside)

    def kl(self, other: "Gamma") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        a1, b1, a2, b2 = alike(*self, *other)
        return a2 * excess(a1 / b1, a2 / b2) + 0.5 * excess(a2, a1) + stirling_divergence(a2, a1)

    def entropy(self) -> Float[Array, "*shape"]:
        a, b = alike(*self)
        rest, slope = jax.jvp(stirling, (a,), (jnp.ones_like(a),))
        return 0.5 * (jnp.log(a) + LOG_2PI + 1.0) - jnp.log(b) - 0.5 / a + rest + (1.0 - a) * slope


class Bernoulli(NamedTuple):
    """B(sigmoid(logits)), elementwise, on {0, 1}. With logits, probabilities close to 0 and 1 stay apart from 0 and 1.

    Infinite logits are point masses. For grey x, between 0 and 1, log_prob is linear: minus the cross-entropy. Outside
    of [0, 1] it is -inf.
    """

    logits: Float[Array, "*shape"]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(as_float(self.logits))

    @property
    def variance(self) -> Float[Array, "*shape"]:
        logits = as_float(self.logits)
        return jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)

    def sample(self, key: Keys) -> Float[Array, "*shape"]:
        logits = as_float(self.logits)
        return (randomness.logistic(key, logits.shape, logits.dtype) < logits).astype(logits.dtype)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        x, logits = alike(x, self.logits)
        outside = (x < 0) | (x > 1)
        x = jnp.where(outside, 0.0, x)
        inside = weigh(x, jax.nn.log_sigmoid(logits)) + weigh(1.0 - x, jax.nn.log_sigmoid(-logits))
        return jnp.where(outside, -jnp.inf, inside)

    def kl(self, other: "Bernoulli") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        a, b = alike(self.logits, other.logits)
        on = jax.nn.log_sigmoid(a) - jax.nn.log_sigmoid(b)
        off = jax.nn.log_sigmoid(-a) - jax.nn.log_sigmoid(-b)
        return weigh(jax.nn.sigmoid(a), on) + weigh(jax.nn.sigmoid(-a), off)

    def entropy(self) -> Float[Array, "*shape"]:
        logits = as_float(self.logits)
        on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        return -weigh(jax.nn.sigmoid(logits), on) - weigh(jax.nn.sigmoid(-logits), off)


class _Discretized(ABC):
    """A law on the reals rounded to `num_bins` equidistant values from -1 to 1, both end bins open.

    log_prob treats an x between two bins as the middle of a bin of its own. It is -inf beyond the outermost bins, which
    reach from -1 - 1/(num_bins - 1) to 1 + 1/(num_bins - 1).
    """

    num_bins: int

    @property
    def bins(self) -> Float[Array, " num_bins"]:
        return jnp.linspace(-1.0, 1.0, self.num_bins, dtype=floating(*jax.tree.leaves(self)))

    @abstractmethod
    def log_prob(self, x: Array) -> Array: ...

    def _half(self) -> float:
        """Half the width of a bin."""
        return 1.0 / (self.num_bins - 1)

    def _round(self, x: Array) -> Array:
        scale = 0.5 * (self.num_bins - 1)
        return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * scale) / scale - 1.0

    def _table(self) -> Float[Array, "*shape num_bins"]:
        return jax.vmap(self.log_prob, out_axes=-1)(self.bins)

    def kl(self, other: "_Discretized") -> Float[Array, "*shape"]:
        """KL(self ‖ other), of the rounded variables."""
        table, theirs = alike(self._table(), other._table())
        return jnp.sum(weigh(jnp.exp(table), table - theirs), axis=-1)

    def entropy(self) -> Float[Array, "*shape"]:
        table = self._table()
        return -jnp.sum(weigh(jnp.exp(table), table), axis=-1)


@pytrees.register
@dataclass(frozen=True)
class DiscretizedNormal(_Discretized):
    """A Normal rounded to `num_bins` equidistant values from -1 to 1 (256 for 8-bit pixels), both end bins open.

    `mean` and `variance` are those of the Normal before rounding. The probabilities of the bins sum to 1
    (Ho et al. 2020, eq. 13). `entropy` and `kl` are exact sums over the bins.
    """

    mean: Float[Array, "*#shape"]
    variance: Float[Array, "*#shape"]
    num_bins: int = field(default=256, metadata={"static": True})

    def sample(self, key: Keys) -> Float[Array, "*shape"]:
        return self._round(Normal(self.mean, self.variance).sample(key))

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """log P(x) in nats, for x one of the bins."""
        x, mean, variance = alike(x, self.mean, self.variance)
        half, std = self._half(), jnp.sqrt(variance)
        outside = jnp.abs(x) > 1.0 + half
        x = jnp.where(outside, 0.0, x)
        first, last = x < -1.0 + half, x > 1.0 - half
        centre, width = jnp.broadcast_arrays((x - mean) / std, 2.0 * half / std)
        narrow = (width < NARROW) & (jnp.abs(centre) * width < 0.5) & ~first & ~last
        lower = jnp.where(first, -jnp.inf, (x - half - mean) / std)
        upper = jnp.where(last, jnp.inf, (x + half - mean) / std)
        # Φ(b) - Φ(a) = Φ(-a) - Φ(-b): take the side on which both are small, so that nothing cancels.
        flip = lower + upper > 0
        a = jnp.where(flip, -upper, lower)
        b = jnp.where(flip, -lower, upper)
        # An open bin is Φ(b); the inner wheres keep -inf, and log(1 - exp(0)), away from the unused branch's gradient.
        closed = jnp.isfinite(a) & ~narrow
        ratio = log_ndtr(jnp.where(closed, a, b)) - log_ndtr(b)
        wide = log_ndtr(b) + jnp.where(closed, log1mexp(jnp.where(closed, ratio, -1.0)), 0.0)
        inside = jnp.where(narrow, _log_narrow(jnp.where(narrow, centre, 0.0), jnp.where(narrow, width, NARROW)), wide)
        return jnp.where(outside, -jnp.inf, inside)


@pytrees.register
@dataclass(frozen=True)
class DiscretizedLogistic(_Discretized):
    """A logistic law rounded to `num_bins` equidistant values from -1 to 1, both end bins open.

    `mean`, `scale` and `variance` = π² scale²/3 are those of the logistic law before rounding. The probabilities of the
    bins sum to 1 (Kingma et al. 2016, section 5.2). `entropy` and `kl` are exact sums over the bins.
    """

    mean: Float[Array, "*#shape"]
    scale: Float[Array, "*#shape"]
    num_bins: int = field(default=256, metadata={"static": True})

    @property
    def variance(self) -> Float[Array, "*#shape"]:
        return (jnp.pi * as_float(self.scale)) ** 2 / 3.0

    def sample(self, key: Keys) -> Float[Array, "*shape"]:
        mean, scale = jnp.broadcast_arrays(*alike(self.mean, self.scale))
        return self._round(mean + scale * randomness.logistic(key, mean.shape, mean.dtype))

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """log P(x) in nats, for x one of the bins."""
        x, mean, scale = alike(x, self.mean, self.scale)
        half = self._half()
        outside = jnp.abs(x) > 1.0 + half
        x = jnp.where(outside, 0.0, x)
        first, last = x < -1.0 + half, x > 1.0 - half
        upper = jnp.where(last, 0.0, jax.nn.log_sigmoid((x + half - mean) / scale))
        lower = jnp.where(first, 0.0, jax.nn.log_sigmoid((mean - x + half) / scale))
        inside = upper + lower + jnp.where(first | last, 0.0, log1mexp(-2.0 * half / scale))
        return jnp.where(outside, -jnp.inf, inside)


def _log_narrow(centre: Array, width: Array) -> Array:
    """log of the increase of Φ over an interval, by a Taylor series. The width must be small, also against 1/centre."""
    c, q = centre**2, (width / 2) ** 2
    series = q * (c - 1) / 6 + q**2 * (c**2 - 6 * c + 3) / 120 + q**3 * (c**3 - 15 * c**2 + 45 * c - 15) / 5040
    return -0.5 * (c + LOG_2PI) + jnp.log(width) + jnp.log1p(series)
