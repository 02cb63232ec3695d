"""Distributions, as pytrees of their parameters.

`sample(key)`, `log_prob(x)`, `kl(other)`, `entropy()`, `mean` and `variance` are elementwise and in nats; summing
over event axes is the caller's business, because only the caller knows which axes are events.

    Normal             log N(x; m, v) = -½ [(x - m)²/v + log 2πv]
                       KL(m₁, v₁ ‖ m₂, v₂) = ½ [(m₁ - m₂)²/v₂ + r - log(1 + r)],  r = (v₁ - v₂)/v₂
    DiscretizedNormal  Φ((x + w/2 - m)/√v) - Φ((x - w/2 - m)/√v), the outermost bins open (Ho et al. 2020, eq. 13)

The KL is written in r because v₁/v₂ - 1 - log(v₁/v₂) is a difference of nearly equal numbers whenever the two
variances almost agree, which is what they do at every step of a diffusion.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Float, PRNGKeyArray

LOG_2PI = 1.8378770664093453


class Distribution(Protocol):
    """What a step of a Markov chain is made of. All methods are elementwise; log-probabilities are in nats."""

    @property
    def mean(self) -> Array: ...
    @property
    def variance(self) -> Array: ...
    def sample(self, key: PRNGKeyArray) -> Array: ...
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

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        dtype = jnp.result_type(self.mean, self.variance, float)
        return self.mean + jnp.sqrt(self.variance) * jax.random.normal(key, self.shape, dtype)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return -0.5 * ((x - self.mean) ** 2 / self.variance + jnp.log(self.variance) + LOG_2PI)

    def kl(self, other: "Normal") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        r = (self.variance - other.variance) / other.variance
        near = jnp.abs(r) < 0.5  # a much smaller variance is lost in r = -1 + ratio, so log1p is for the near ones
        log_ratio = jnp.where(near, jnp.log1p(jnp.where(near, r, 0.0)), jnp.log(self.variance / other.variance))
        return 0.5 * ((self.mean - other.mean) ** 2 / other.variance + r - log_ratio)

    def entropy(self) -> Float[Array, "*shape"]:
        return jnp.broadcast_to(0.5 * (jnp.log(self.variance) + LOG_2PI + 1.0), self.shape)


class Bernoulli(NamedTuple):
    """B(sigmoid(logits)), elementwise, on {0, 1}. Logits keep probabilities next to 0 and 1 apart from 0 and 1.

    Infinite logits are point masses.
    """

    logits: Float[Array, "*shape"]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(self.logits)

    @property
    def variance(self) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(self.logits) * jax.nn.sigmoid(-self.logits)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        return jax.random.bernoulli(key, self.mean).astype(jnp.result_type(self.logits, float))

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return _weigh(x, jax.nn.log_sigmoid(self.logits)) + _weigh(1.0 - x, jax.nn.log_sigmoid(-self.logits))

    def kl(self, other: "Bernoulli") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        on = jax.nn.log_sigmoid(self.logits) - jax.nn.log_sigmoid(other.logits)
        off = jax.nn.log_sigmoid(-self.logits) - jax.nn.log_sigmoid(-other.logits)
        return _weigh(self.mean, on) + _weigh(jax.nn.sigmoid(-self.logits), off)

    def entropy(self) -> Float[Array, "*shape"]:
        on, off = jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits)
        return -_weigh(self.mean, on) - _weigh(jax.nn.sigmoid(-self.logits), off)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscretizedNormal:
    """A Normal rounded to `num_bins` equidistant values from -1 to 1 (256 for 8-bit pixels), both end bins open.

    `mean` and `variance` are those of the Normal before rounding. The probabilities of the bins sum to 1
    (Ho et al. 2020, eq. 13). `entropy` and `kl` are exact sums over the bins.
    """

    mean: Float[Array, "*#shape"]
    variance: Float[Array, "*#shape"]
    num_bins: int = field(default=256, metadata={"static": True})

    @property
    def bins(self) -> Float[Array, " num_bins"]:
        return jnp.linspace(-1.0, 1.0, self.num_bins)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        x = Normal(self.mean, self.variance).sample(key)
        scale = 0.5 * (self.num_bins - 1)
        return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * scale) / scale - 1.0

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """log P(x) in nats, for x one of the bins."""
        half = 1.0 / (self.num_bins - 1)
        std = jnp.sqrt(self.variance)
        lower = jnp.where(x < -1.0 + half, -jnp.inf, (x - half - self.mean) / std)
        upper = jnp.where(x > 1.0 - half, jnp.inf, (x + half - self.mean) / std)
        # Φ(b) - Φ(a) = Φ(-a) - Φ(-b): take the side on which both are small, so that nothing cancels.
        flip = lower + upper > 0
        a = jnp.where(flip, -upper, lower)
        b = jnp.where(flip, -lower, upper)
        # An open bin is Φ(b); the inner wheres keep -inf, and log(1 - exp(0)), away from the unused branch's gradient.
        closed = jnp.isfinite(a)
        ratio = log_ndtr(jnp.where(closed, a, b)) - log_ndtr(b)
        return log_ndtr(b) + jnp.where(closed, _log1mexp(jnp.where(closed, ratio, -1.0)), 0.0)

    def _table(self) -> Float[Array, "*shape num_bins"]:
        mean, variance = jnp.asarray(self.mean)[..., None], jnp.asarray(self.variance)[..., None]
        return DiscretizedNormal(mean, variance, self.num_bins).log_prob(self.bins)

    def kl(self, other: "DiscretizedNormal") -> Float[Array, "*shape"]:
        """KL(self ‖ other), of the rounded variables."""
        table = self._table()
        return jnp.sum(jnp.exp(table) * (table - other._table()), axis=-1)

    def entropy(self) -> Float[Array, "*shape"]:
        table = self._table()
        return -jnp.sum(jnp.exp(table) * table, axis=-1)


def _weigh(p: Array, log_q: Array) -> Array:
    """p log q with 0 log 0 = 0, in value and gradient."""
    return jnp.where(p == 0, 0.0, p * jnp.where(p == 0, 0.0, log_q))


def _log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0 without cancellation (Mächler 2012)."""
    near = x > -0.6931472
    return jnp.where(near, jnp.log(-jnp.expm1(jnp.where(near, x, -1.0))), jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))
