"""A dense network of (x, y) for all classes y at once.

    h(x, y) = softplus(W x + c V_y + b)        the first layer of a network of x and of c times the one-hot y

W x is computed once for all classes. Adam moves every weight equally fast, and so a sum over all elements of x faster
than the one weight that a class has: without c, what a class could explain is learned from x before the class
is of any use, and q(y | x) forgets the labels meanwhile.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike, as_float

SCALE = 40.0  # c


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
        classes = self.param("classes", nn.initializers.zeros, (self.num_classes, first), jnp.float32)
        h, classes = alike(nn.Dense(first)(as_float(x)), classes)
        h = h + SCALE * classes
        for units in rest:
            h = nn.Dense(units)(nn.softplus(h))
        return nn.Dense(self.out)(nn.softplus(h))
