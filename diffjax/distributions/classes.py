"""The distribution of one of K classes. See `diffjax.distributions`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from diffjax import randomness
from diffjax.dtypes import alike, as_float
from diffjax.randomness import Keys
from diffjax.special import weigh


class Categorical(NamedTuple):
    """The classes 0 .. K - 1 with probabilities softmax(logits), elementwise over all axes but the last.

    Draws are int32 arrays without the axis of classes. A logit of -inf is a class of probability 0. `mean` and
    `variance` are those of the class as a number. log_prob takes classes as integers, or as floats that are whole
    numbers, and is -inf for any other number.
    """

    logits: Float[Array, "*shape classes"]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[-1]

    @property
    def log_probs(self) -> Float[Array, "*shape classes"]:
        """log p_0 .. log p_{K-1}."""
        return jax.nn.log_softmax(as_float(self.logits), axis=-1)

    @property
    def probs(self) -> Float[Array, "*shape classes"]:
        return jax.nn.softmax(as_float(self.logits), axis=-1)

    @property
    def mean(self) -> Float[Array, "*shape"]:
        p = self.probs
        return (p * jnp.arange(self.num_classes, dtype=p.dtype)).sum(-1)

    @property
    def variance(self) -> Float[Array, "*shape"]:
        p = self.probs
        return (p * (jnp.arange(self.num_classes, dtype=p.dtype) - self.mean[..., None]) ** 2).sum(-1)

    def sample(self, key: Keys) -> Int[Array, "*shape"]:
        logits = as_float(self.logits)
        if randomness.per_example(key):
            return jax.vmap(lambda key, logits: Categorical(logits).sample(key))(key, logits)
        # In the mode "low" a class of probability below 1e-7 would be drawn too rarely.
        return jax.random.categorical(key, logits, mode="high").astype(jnp.int32)

    def log_prob(self, x: Array) -> Float[Array, "..."]:
        x, log_probs = jnp.asarray(x), self.log_probs
        whole = x.astype(jnp.int32)
        inside = (whole >= 0) & (whole < self.num_classes) & (whole == x)
        there = jnp.clip(whole, 0, self.num_classes - 1)[..., None] == jnp.arange(self.num_classes)
        found = jnp.where(there, log_probs, 0.0).sum(-1)
        return jnp.where(inside, found, -jnp.inf)

    def kl(self, other: "Categorical") -> Float[Array, "*shape"]:
        """KL(self ‖ other)."""
        a, b = alike(self.log_probs, other.log_probs)
        return weigh(jnp.exp(a), a - b).sum(-1)

    def entropy(self) -> Float[Array, "*shape"]:
        log_probs = self.log_probs
        return -weigh(jnp.exp(log_probs), log_probs).sum(-1)
