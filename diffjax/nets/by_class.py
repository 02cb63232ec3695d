"""A dense network of (x, y) for all classes y at once.

    h(x, y) = softplus(W x + V e_y + b) = softplus(W x + b + V_y)

The first layer of the concatenation of x and the one-hot e_y is a sum: W x is computed once for all classes, and V e_y
is a row of a table.
"""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array
from jaxtyping import Float


class ByClass(nn.Module):
    """Layers of `features` units with softplus, at least one, then `out` linear ones.

    V starts at 0: what a class means is then learned from labels, not handed out by the initial weights.
    """

    num_classes: int
    features: Sequence[int]
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch #classes dim"]) -> Float[Array, "*batch classes out"]:
        """x is of one class each, or, where its axis of classes is 1, the same for all."""
        first, *rest = self.features
        h = nn.Dense(first)(x) + self.param("classes", nn.initializers.zeros, (self.num_classes, first))
        for units in rest:
            h = nn.Dense(units)(nn.softplus(h))
        return nn.Dense(self.out)(nn.softplus(h))
