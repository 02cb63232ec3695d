"""A classifier of images, trained by cross-entropy. Nothing can be sampled from it.

It is for `evaluation.quality=run:DIR`. Its last layer but one gives features of digits, which ImageNet's networks lack.
Its classes show which digits a model draws too seldom.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import randomness
from diffjax.errors import InputError
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.probe import Probe
from diffjax.nets.convolutional import ConvClassifier
from diffjax.zoo.model import Batch, Examples, Model, labels, scaled


def classifier(network: nn.Module, shape: tuple[int, ...], levels: int, num_classes: int) -> Model:
    """The Model of a classifier. Its loss is -log p(y | x) in nats, and 0 for examples whose label is -1.

    Args:
        network: images in [-1, 1] -> (features (batch, d), logits (batch, num_classes)).
        shape: (height, width, channels) of an image.
        levels: number of values that an element of an image takes.
    """
    classes = ("net.num_classes", num_classes)

    def apply(params: Any, batch: Batch) -> tuple[Array, Array]:
        features, logits = map(jnp.asarray, network.apply({"params": params}, scaled(batch["image"], levels)))
        return features, jax.nn.log_softmax(logits)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        known = labels(batch, classes)
        log_probs = apply(params, batch)[1]
        chosen = jnp.take_along_axis(log_probs, jnp.maximum(known, 0)[:, None], 1)[:, 0]
        return jnp.where(known < 0, 0.0, -chosen)

    return Model(
        init=lambda key: network.init(key, jnp.zeros((1, *shape)))["params"],
        loss=loss,
        examples=Examples(classes=classes),
        measures=(
            Classification(lambda params, batch: apply(params, batch)[1]),
            Probe(lambda params, batch: apply(params, batch)[0]),
        ),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, net}`, see configs/classifier_digits.py.

    Raises:
        InputError: if the data are not images of levels.
    """
    shape, levels, net = tuple(config.data.shape), config.data.levels, config.net
    if len(shape) != 3 or levels < 2:
        raise InputError(f"data.shape={shape}, data.levels={levels}: give images (H, W, C) of at least 2 levels")
    network = ConvClassifier(net.num_classes, tuple(net.channels), net.features)
    return classifier(network, shape, levels, net.num_classes)
