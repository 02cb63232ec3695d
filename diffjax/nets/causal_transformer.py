"""A causal transformer of classes: the logits of a place see only the places before it in an order.

    h_i = E[x_{o(i-1)}] + P[o(i)] + C[o(i)],   E[x_{o(0)}] a start vector,  P a learned position, C a condition
    h   = h + attention(norm(h)),  place i attends to places 1 .. i      (Vaswani et al. 2017, eq. 1)
    h   = h + MLP(norm(h))
    logits_i = V norm(h_i)

The input of step i is the class before and the place that comes next. So one network takes every order.
A step keeps the keys and values of all places before, and computes one place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from diffjax.errors import InputError

NORMAL = nn.initializers.normal(0.02)


class KeysValues(NamedTuple):
    """Of one block: both (batch, places, heads, features)."""

    keys: Array
    values: Array


class Block(nn.Module):
    """Attention and an MLP."""

    width: int
    heads: int

    def setup(self) -> None:
        self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()
        self.qkv = nn.Dense(3 * self.width)
        self.proj = nn.Dense(self.width, kernel_init=NORMAL)
        self.dense0 = nn.Dense(4 * self.width)
        self.dense1 = nn.Dense(self.width, kernel_init=NORMAL)

    def __call__(self, h: Array) -> Array:
        """All places (batch, length, width), each from those up to it."""
        q, k, v = self._heads(h)
        return self._rest(h, attend(q, k, v, jnp.tri(h.shape[1], dtype=bool)))

    def step(self, cache: KeysValues, h: Array, i: Array) -> tuple[KeysValues, Array]:
        """One place (batch, width), the i-th."""
        q, k, v = self._heads(h[:, None])
        cache = KeysValues(
            *(jax.lax.dynamic_update_slice_in_dim(c, x, i, 1) for c, x in zip(cache, (k, v), strict=True))
        )
        seen = jnp.arange(cache.keys.shape[1]) <= i
        return cache, self._rest(h[:, None], attend(q, *cache, seen[None]))[:, 0]

    def _heads(self, h: Array) -> list[Array]:
        h = self.qkv(self.norm1(h))
        return jnp.split(h.reshape(*h.shape[:-1], 3 * self.heads, -1), 3, axis=-2)

    def _rest(self, h: Array, attended: Array) -> Array:
        h = h + self.proj(attended.reshape(h.shape))
        return h + self.dense1(nn.gelu(self.dense0(self.norm2(h))))


def attend(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """softmax(q k'/√C) v over the places that are seen. q (batch, n, heads, C), k and v (batch, m, heads, C)."""
    logits = jnp.einsum("bnhc,bmhc->bhnm", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhnm,bmhc->bnhc", nn.softmax(jnp.where(seen, logits, -jnp.inf)), v)


class CausalTransformer(nn.Module):
    """Logits of classes (batch, places) -> (batch, places, num_classes).

    Attributes:
      places: D.
      num_classes: K.
      width, depth, heads: features of a place, number of blocks, and heads of the attention.
    """

    places: int
    num_classes: int
    width: int = 64
    depth: int = 3
    heads: int = 4

    def setup(self) -> None:
        if self.width % self.heads:
            raise InputError(f"net.width={self.width} must be a multiple of net.heads={self.heads}")
        self.classes = nn.Embed(self.num_classes + 1, self.width, embedding_init=NORMAL)  # the last one is the start
        self.positions = nn.Embed(self.places, self.width, embedding_init=NORMAL)
        self.condition = nn.Dense(self.width)
        self.blocks = [Block(self.width, self.heads) for _ in range(self.depth)]
        self.norm = nn.LayerNorm()
        self.out = nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)

    def __call__(
        self,
        x: Int[Array, "batch places"],
        order: Int[Array, " places"],
        condition: Float[Array, "batch places features"] | None = None,
    ) -> Float[Array, "batch places classes"]:
        """The logits of every place d at [:, d].

        Args:
          order: the place that comes i-th is order[i].
          condition: features of each place, known from the beginning.
        """
        before = jnp.concatenate([jnp.full_like(x[:, :1], self.num_classes), x[:, order[:-1]]], axis=1)
        h = self.classes(before) + self.positions(order)
        if condition is not None:
            h = h + self.condition(condition[:, order])
        for block in self.blocks:
            h = block(h)
        logits = self.out(self.norm(h))
        return jnp.zeros_like(logits).at[:, order].set(logits)

    def start(self, batch: int) -> list[KeysValues]:
        """The state before the first place."""
        empty = jnp.zeros((batch, self.places, self.heads, self.width // self.heads))
        return [KeysValues(empty, empty) for _ in range(self.depth)]

    def step(
        self,
        state: list[KeysValues],
        i: Int[Array, ""],
        previous: Int[Array, " batch"],
        order: Int[Array, " places"],
        condition: Float[Array, "batch places features"] | None = None,
    ) -> tuple[list[KeysValues], Float[Array, "batch classes"]]:
        """The logits of place order[i], where `previous` is the class at order[i - 1]."""
        h = self.classes(jnp.where(i == 0, self.num_classes, previous)) + self.positions(order[i])
        if condition is not None:
            h = h + self.condition(condition[:, order[i]])
        new = []
        for block, cache in zip(self.blocks, state, strict=True):
            cache, h = block.step(cache, h, i)
            new.append(cache)
        return new, self.out(self.norm(h))
