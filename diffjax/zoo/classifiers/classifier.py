"""A classifier of images, trained by cross-entropy. Nothing can be sampled from it.

Its use is `evaluation.quality=run:DIR`: the last layer but one is features of digits that ImageNet's networks do not
have, and its classes say which ones a model draws too seldom.
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
    """-log p(y | x) of labelled images; an example whose label is -1 counts 0.

    Args:
        network: images in [-1, 1] -> (features (batch, d), logits (batch, num_classes)).
        shape: of an image.
        levels: the number of values an element takes.
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
        InputError: on data that are no images of levels.
    """
    shape, levels, net = tuple(config.data.shape), config.data.levels, config.net
    if len(shape) != 3 or levels < 2:
        raise InputError(f"data.shape={shape}, data.levels={levels}: the classifier takes images (H, W, C) of levels")
    network = ConvClassifier(net.num_classes, tuple(net.channels), net.features)
    return classifier(network, shape, levels, net.num_classes)
