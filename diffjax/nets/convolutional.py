"""A small convolutional classifier of images without noise: two convolutions, a dense layer of features, the logits.

h = swish(conv 3x3), stride 2, twice; features = swish(dense(h)); logits = dense(features)
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from diffjax.errors import InputError


class ConvClassifier(nn.Module):
    """Features and logits of images (batch, height, width, channels) with values of about [-1, 1].

    Attributes:
      num_classes: number of classes, at least 2.
      channels: of each convolution; each convolution halves the size, rounded up.
      features: number of features.
    """

    num_classes: int
    channels: Sequence[int] = (32, 64)
    features: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch num_classes"]]:
        """The features and the logits.

        Raises:
          InputError: fewer than two classes, or x is no batch of images.
        """
        if self.num_classes < 2:
            raise InputError(f"num_classes is {self.num_classes}; a classifier needs at least 2")
        if x.ndim != 4:
            raise InputError(f"x has shape {x.shape}; give images as (batch, height, width, channels)")
        h = x
        for i, channels in enumerate(self.channels):
            h = nn.swish(nn.Conv(channels, (3, 3), (2, 2), name=f"conv_{i}")(h))
        features = nn.swish(nn.Dense(self.features, name="features")(h.reshape(len(h), -1)))
        return features, jnp.asarray(nn.Dense(self.num_classes, name="head")(features))
