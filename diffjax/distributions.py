"""Distributions, as pytrees of their parameters.

`sample(key)`, `log_prob(x)`, `kl(other)`, `entropy()`, `mean` and `variance` are elementwise and in nats; summing
over event axes is the caller's business, because only the caller knows which axes are events.

    Normal               log N(x; m, v) = -½ [(x - m)²/v + log 2πv]
                         KL(m₁, v₁ ‖ m₂, v₂) = ½ [(m₁ - m₂)²/v₂ + r - log(1 + r)],  r = (v₁ - v₂)/v₂
    Gamma                log G(x; a, b) = a log b - log Γ(a) + (a - 1) log x - b x
                         KL(a₁, b₁ ‖ a₂, b₂) = (a₁ - a₂) ψ(a₁) - log Γ(a₁)/Γ(a₂) + a₂ log b₁/b₂ + a₁ (b₂ - b₁)/b₁
    DiscretizedNormal    Φ((x + w/2 - m)/√v) - Φ((x - w/2 - m)/√v), the outermost bins open (Ho et al. 2020, eq. 13)
    DiscretizedLogistic  the same of σ((x ± w/2 - m)/s) (Kingma et al. 2016, section 5.2), from

        σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b))

The KL of Normals is written in r because v₁/v₂ - 1 - log(v₁/v₂) is a difference of nearly equal numbers whenever the
two variances almost agree, which is what they do at every step of a diffusion. Samples of Normal and Gamma (implicitly:
Figurnov et al. 2018) are differentiable in the parameters; those of the others, `DISCRETE`, are not.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, gammaln, log_ndtr, xlogy
from jaxtyping import Float, PRNGKeyArray

from diffjax import pytrees

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


class Gamma(NamedTuple):
    """Gamma(concentration, rate), elementwise, on x > 0. Concentrations below 0.1 may draw 0 in single precision."""

    concentration: Float[Array, "*#shape"]
    rate: Float[Array, "*#shape"]

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return self.concentration / self.rate

    @property
    def variance(self) -> Float[Array, "*shape"]:
        return self.concentration / self.rate**2

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        shape = jnp.broadcast_shapes(jnp.shape(self.concentration), jnp.shape(self.rate))
        dtype = jnp.result_type(self.concentration, self.rate, float)
        return jax.random.gamma(key, self.concentration, shape, dtype) / self.rate

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        a, b = self.concentration, self.rate
        return a * jnp.log(b) - gammaln(a) + xlogy(a - 1.0, x) - b * x

    def kl(self, other: "Gamma") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        (a1, b1), (a2, b2) = self, other
        log_ratio = gammaln(a1) - gammaln(a2) - a2 * (jnp.log(b1) - jnp.log(b2))
        return (a1 - a2) * digamma(a1) - log_ratio + a1 * (b2 - b1) / b1

    def entropy(self) -> Float[Array, "*shape"]:
        a, b = self.concentration, self.rate
        return a - jnp.log(b) + gammaln(a) + (1.0 - a) * digamma(a)


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


class _Discretized(ABC):
    """A law on the reals rounded to `num_bins` equidistant values from -1 to 1, both end bins open."""

    num_bins: int

    @property
    def bins(self) -> Float[Array, " num_bins"]:
        return jnp.linspace(-1.0, 1.0, self.num_bins)

    @abstractmethod
    def log_prob(self, x: Array) -> Array: ...

    def _round(self, x: Array) -> Array:
        scale = 0.5 * (self.num_bins - 1)
        return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * scale) / scale - 1.0

    def _table(self) -> Float[Array, "*shape num_bins"]:
        return jax.vmap(self.log_prob, out_axes=-1)(self.bins)

    def kl(self, other: "_Discretized") -> Float[Array, "*shape"]:
        """KL(self ‖ other), of the rounded variables."""
        table = self._table()
        return jnp.sum(jnp.exp(table) * (table - other._table()), axis=-1)

    def entropy(self) -> Float[Array, "*shape"]:
        table = self._table()
        return -jnp.sum(jnp.exp(table) * table, axis=-1)


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

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        return self._round(Normal(self.mean, self.variance).sample(key))

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
        return (jnp.pi * self.scale) ** 2 / 3.0

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        shape = jnp.broadcast_shapes(jnp.shape(self.mean), jnp.shape(self.scale))
        dtype = jnp.result_type(self.mean, self.scale, float)
        return self._round(self.mean + self.scale * jax.random.logistic(key, shape, dtype))

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """log P(x) in nats, for x one of the bins."""
        half = 1.0 / (self.num_bins - 1)
        first, last = x < -1.0 + half, x > 1.0 - half
        upper = jnp.where(last, 0.0, jax.nn.log_sigmoid((x + half - self.mean) / self.scale))
        lower = jnp.where(first, 0.0, jax.nn.log_sigmoid((self.mean - x + half) / self.scale))
        return upper + lower + jnp.where(first | last, 0.0, _log1mexp(-2.0 * half / self.scale))


DISCRETE = (Bernoulli, DiscretizedNormal, DiscretizedLogistic)


def _weigh(p: Array, log_q: Array) -> Array:
    """p log q with 0 log 0 = 0, in value and gradient."""
    return jnp.where(p == 0, 0.0, p * jnp.where(p == 0, 0.0, log_q))


def _log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0 without cancellation (Mächler 2012)."""
    near = x > -0.6931472
    return jnp.where(near, jnp.log(-jnp.expm1(jnp.where(near, x, -1.0))), jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))
