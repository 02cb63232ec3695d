"""MADE and NADE of classes: logits of each place from the places before it in an order.

    MADE    masked dense layers; a unit of degree m sees the first m places of the order      (Germain et al. 2015)
    NADE    a_i = c + Σ_{j<i} W[o(j), x_{o(j)}],  logits_{o(i)} = b_{o(i)} + V_{o(i)} relu(a_i)
            (Larochelle & Murray 2011)
    DeepNADE  a dense network of what is seen and of which places are seen, for every order   (Uria et al. 2014)

Larochelle & Murray have the logistic function for relu. In a step, MADE and NADE add the row of one class to the units
of the first layer, which are the state.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

LECUN = nn.initializers.lecun_normal()
ZERO = nn.initializers.zeros


class CategoricalMADE(nn.Module):
    """Logits of classes (batch, places) -> (batch, places, num_classes), in any order, with any degrees of its units.

    Attributes:
      features: units of the hidden layers.
      direct: whether each logit also sees the places before it by weights of its own.
    """

    places: int
    num_classes: int
    features: Sequence[int]
    direct: bool = True

    def setup(self) -> None:
        inputs, sizes = self.places * self.num_classes, [*self.features]
        self.first = self.param("first", LECUN, (inputs, sizes[0]))
        self.kernels = [self.param(f"kernel_{i}", LECUN, (a, b)) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
        self.biases = [self.param(f"bias_{i}", ZERO, (size,)) for i, size in enumerate(sizes)]
        self.last = self.param("last", ZERO, (sizes[-1], inputs))
        self.last_bias = self.param("last_bias", ZERO, (inputs,))
        if self.direct:
            self.across = self.param("across", ZERO, (inputs, inputs))

    def __call__(
        self, x: Int[Array, "batch places"], order: Int[Array, " places"], seed: Int[Array, ""] | int = 0
    ) -> Float[Array, "batch places classes"]:
        """The logits of every place d at [:, d].

        Args:
          order: the place that comes i-th is order[i].
          seed: of the degrees of the hidden units: another seed connects them differently.
        """
        rank = jnp.argsort(order).repeat(self.num_classes)  # of the inputs, and of the logits
        degrees = self._degrees(seed)
        ones = jax.nn.one_hot(x, self.num_classes).reshape(len(x), -1)
        h = jnp.dot(ones, jnp.where(rank[:, None] < degrees[0], self.first, 0.0)) + self.biases[0]
        h = self._hidden(h, degrees)
        y = jnp.dot(h, jnp.where(degrees[-1][:, None] <= rank, self.last, 0.0)) + self.last_bias
        if self.direct:
            y = y + jnp.dot(ones, jnp.where(rank[:, None] < rank, self.across, 0.0))
        return y.reshape(*x.shape, self.num_classes)

    def start(self, batch: int) -> tuple[Array, Array]:
        """The state before the first place: the first layer's units, and the classes seen (batch, inputs)."""
        inputs = self.places * self.num_classes
        return jnp.broadcast_to(self.biases[0], (batch, self.features[0])), jnp.zeros((batch, inputs))

    def step(
        self,
        state: tuple[Array, Array],
        i: Int[Array, ""],
        previous: Int[Array, " batch"],
        order: Int[Array, " places"],
        seed: Int[Array, ""] | int = 0,
    ) -> tuple[tuple[Array, Array], Float[Array, "batch classes"]]:
        """The logits of place order[i], where `previous` is the class at order[i - 1]."""
        (units, seen), degrees = state, self._degrees(seed)
        row = order[i - 1] * self.num_classes + previous
        added = jnp.where(i - 1 < degrees[0], self.first[row], 0.0)
        units = units + jnp.where(i > 0, added, 0.0)
        seen = jnp.where(i > 0, seen.at[jnp.arange(len(seen)), row].set(1.0), seen)
        h = self._hidden(units, degrees)

        def mine(kernel: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(kernel, order[i] * self.num_classes, self.num_classes, axis=-1)

        y = jnp.dot(h, jnp.where(degrees[-1][:, None] <= i, mine(self.last), 0.0)) + mine(self.last_bias)
        return (units, seen), y + jnp.dot(seen, mine(self.across)) if self.direct else y

    def _hidden(self, h: Array, degrees: list[Array]) -> Array:
        """The last hidden layer, from the first before its nonlinearity."""
        h = nn.relu(h)
        for kernel, bias, a, b in zip(self.kernels, self.biases[1:], degrees[:-1], degrees[1:], strict=True):
            h = nn.relu(jnp.dot(h, jnp.where(a[:, None] <= b, kernel, 0.0)) + bias)
        return h

    def _degrees(self, seed: Array | int) -> list[Array]:
        """How many places of the order each hidden unit may see: 1 .. places - 1, evenly, in a random order."""
        key = jax.random.key(seed)
        return [
            jax.random.permutation(jax.random.fold_in(key, i), np.arange(size) % max(self.places - 1, 1) + 1)
            for i, size in enumerate(self.features)
        ]


class NADE(nn.Module):
    """Logits of classes (batch, places) -> (batch, places, num_classes), in one order."""

    places: int
    num_classes: int
    units: int

    def setup(self) -> None:
        inputs = self.places * self.num_classes
        self.first = self.param("first", nn.initializers.normal(0.01), (inputs, self.units))
        self.bias = self.param("bias", ZERO, (self.units,))
        self.last = self.param("last", nn.initializers.normal(0.01), (self.places, self.units, self.num_classes))
        self.last_bias = self.param("last_bias", ZERO, (self.places, self.num_classes))

    def __call__(
        self, x: Int[Array, "batch places"], order: Int[Array, " places"]
    ) -> Float[Array, "batch places classes"]:
        """The logits of every place d at [:, d]; the place that comes i-th is order[i]."""

        def place(units: Array, d: Array) -> tuple[Array, Array]:
            return units + self.first[d * self.num_classes + x[:, d]], self._logits(units, d)

        start = jnp.broadcast_to(self.bias, (len(x), self.units))
        _, logits = jax.lax.scan(jax.checkpoint(place), start, order)
        return jnp.zeros((*x.shape, self.num_classes)).at[:, order].set(logits.swapaxes(0, 1))

    def start(self, batch: int) -> Array:
        """The state before the first place: the units."""
        return jnp.broadcast_to(self.bias, (batch, self.units))

    def step(
        self, state: Array, i: Int[Array, ""], previous: Int[Array, " batch"], order: Int[Array, " places"]
    ) -> tuple[Array, Float[Array, "batch classes"]]:
        """The logits of place order[i], where `previous` is the class at order[i - 1]."""
        added = self.first[order[i - 1] * self.num_classes + previous]
        state = state + jnp.where(i > 0, added, 0.0)
        return state, self._logits(state, order[i])

    def _logits(self, units: Array, d: Array) -> Array:
        return jnp.dot(nn.relu(units), self.last[d]) + self.last_bias[d]


class DeepNADE(nn.Module):
    """Logits of all places from any set of places: (x (batch, places), seen (batch, places)) -> (..., num_classes)."""

    num_classes: int
    features: Sequence[int]

    @nn.compact
    def __call__(self, x: Int[Array, "batch places"], seen: Array) -> Float[Array, "batch places classes"]:
        seen = seen.astype(float)
        ones = jax.nn.one_hot(x, self.num_classes) * seen[..., None]
        h = jnp.concatenate([ones.reshape(len(x), -1), seen], axis=-1)
        for units in self.features:
            h = nn.relu(nn.Dense(units)(h))
        y = nn.Dense(x.shape[1] * self.num_classes, kernel_init=ZERO)(h)
        return y.reshape(*x.shape, self.num_classes)
