"""A dense network of (x, y) for all classes y at once.

    h(x, y) = softplus(W x + c V_y + b)        the first layer of a network whose input is x and c times the one-hot y

W x is computed once for all classes. Adam moves every weight equally fast. So the sum W x over all elements of x moves
faster than V_y, the single weight of a class. Without the factor c, the network learns from x what the class could
explain, before the class has any effect, and q(y | x) forgets the labels meanwhile.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.dtypes import alike, as_float

SCALE = 40.0  # c


class ByClass(nn.Module):
    """At least one softplus layer of `features` units, then a linear layer of `out` units.

    V starts at 0. So the meaning of a class is learned from labels and not set by the initial weights.
    """

    num_classes: int
    features: Sequence[int]
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch #classes dim"]) -> Float[Array, "*batch classes out"]:
        """The output for each class. x has an axis of classes; if its size is 1, all classes have the same x."""
        first, *rest = self.features
        classes = self.param("classes", nn.initializers.zeros, (self.num_classes, first), jnp.float32)
        h, classes = alike(nn.Dense(first)(as_float(x)), classes)
        h = h + SCALE * classes
        for units in rest:
            h = nn.Dense(units)(nn.softplus(h))
        return nn.Dense(self.out)(nn.softplus(h))
