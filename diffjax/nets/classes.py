"""A network of images made one of classes: each class enters as a learned vector beside its number, logits come out.

    in    x_i -> [E_{x_i}, 2 x_i/(K - 1) - 1 or 0 for the mask]      E (states, features)
    out   (batch, H, W, C K) -> (batch, H, W, C, K)

The number says which levels are near each other; the vector need not.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int


class OfClasses(nn.Module):
    """(x (batch, H, W, C), *rest) -> logits (batch, H, W, C, K).

    Attributes:
      network: of images with C (features + 1) channels in and C K out.
      num_classes: K.
      num_states: K, or K + 1 where the last one is a mask.
      features: of the vector of a class.
    """

    network: nn.Module
    num_classes: int
    num_states: int
    features: int

    @nn.compact
    def __call__(
        self, x: Int[Array, "batch height width channels"], *rest: Array | None
    ) -> Float[Array, "batch height width channels classes"]:
        x = x.astype(int)
        vectors = nn.Embed(self.num_states, self.features, name="classes")(x)
        number = jnp.where(x < self.num_classes, 2.0 * x / (self.num_classes - 1) - 1.0, 0.0)
        h = jnp.concatenate([vectors, number[..., None]], axis=-1)
        return self.network(h.reshape(*x.shape[:-1], -1), *rest).reshape(*x.shape, self.num_classes)
