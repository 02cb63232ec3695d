"""Features for comparing samples with data: functions from images to vectors, chosen by name.

`evaluation.quality` gives one name, or several names with commas between them:

    pixels                 the image itself, values in [0, 1]; for data that are no images, the vector as it is
    run:DIR                the features of the encoder or classifier that another run has learnt, in the workdir DIR
    inception:FILE         Inception's last pooling (2048), resized as TensorFlow does: the features of FID and KID.
                           FILE holds the weights. You must supply it, because no package contains it
    inception_pytorch:FILE the same, resized as pytorch-fid does
    efficientnet_lite0     EfficientNet-Lite0's last pooling (1280), trained on ImageNet; needs the extra `features`

Distances by different features are not comparable. Nor are distances by Inception with the two kinds of resizing: they
differ by up to 1 FID. So the name of the features is part of the name of every number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax.errors import InputError
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.measure import Trained
from diffjax.evaluation.probe import Probe
from diffjax.nets import efficientnet
from diffjax.nets import inception as inception_v3
from diffjax.nets.torch_files import read_tensors
from diffjax.paths import local
from diffjax.registry import choose


class Features(NamedTuple):
    """A function from examples to features.

    name      of the network and its resizing, for the names of the numbers
    compute   (params, examples (batch, *event)) -> features (batch, d), and log p(class | example) (batch, classes) or
              None. Images come as uint8, other examples as float32
    params    the first argument of `compute`, as numpy arrays
    resizing  how it resizes images
    """

    name: str
    compute: Callable[[Any, Array], tuple[Array, Array | None]]
    params: Any = None
    resizing: str = "none"


def pixels(argument: str, trained: Trained) -> Features:
    """The example itself, flattened."""

    def compute(_: Any, x: Array) -> tuple[Array, None]:
        scale = 255.0 if x.dtype == jnp.uint8 else 1.0
        return x.reshape(len(x), -1).astype(jnp.float32) / scale, None

    if argument:
        raise InputError(f"evaluation.quality='pixels:{argument}': pixels take no argument; write 'pixels'")
    return Features("pixels", compute)


def of_run(directory: str, trained: Trained) -> Features:
    """The features (`Probe`) and classes (`Classification`) of the system whose run is in a workdir.

    Raises:
        InputError: if the system has neither, or its examples have another shape.
    """
    if not directory:
        raise InputError(
            "evaluation.quality='run': write 'run:DIR', where DIR is the workdir of a run, e.g. of a classifier"
        )
    other = trained.open_run(directory)
    encoders = [measure.features for measure in other.model.measures if isinstance(measure, Probe)]
    classifiers = [measure.class_log_probs for measure in other.model.measures if isinstance(measure, Classification)]
    if not encoders and not classifiers:
        raise InputError(
            f"evaluation.quality='run:{directory}': {other.system!r} has neither features nor a classifier; take a run"
            " of configs/classifier_digits.py or of an auto-encoder"
        )
    shape, levels = other.test_set.shape, other.test_set.levels
    if shape != trained.test_set.shape:
        raise InputError(
            f"evaluation.quality='run:{directory}': that run is of examples {shape}, these are"
            f" {trained.test_set.shape}; take a run on data of this size"
        )

    def compute(params: Any, x: Array) -> tuple[Array, Array | None]:
        batch = {"image": jnp.round(x * ((levels - 1) / 255.0)).astype(jnp.uint8) if levels else x}
        log_probs = classifiers[0](params, batch) if classifiers else None
        features = encoders[0](params, batch) if encoders else log_probs
        assert features is not None
        return features.reshape(len(x), -1), log_probs

    return Features(f"{other.system}_{other.test_set.name}", compute, jax.tree.map(np.asarray, other.whole_params()))


def inception(file: str, resizing: str, name: str) -> Features:
    """The features of the Frechet inception distance, with a file's weights. Logits have no bias, as originally."""
    if not file:
        raise InputError(f"evaluation.quality='{name}': write '{name}:FILE', where FILE is {inception_v3.WEIGHTS}")
    params = inception_v3.from_torch(read_tensors(local(file, "evaluation.quality")))
    network = inception_v3.InceptionV3(resizing)
    return _published(name, network, params, f"bilinear299_{resizing}", lambda found: found.logits_unbiased)


def efficientnet_lite0(argument: str, trained: Trained) -> Features:
    """The features of an ImageNet network whose weights can be installed. Their Frechet distance is no FID."""
    if argument:
        raise InputError(f"evaluation.quality='efficientnet_lite0:{argument}': write 'efficientnet_lite0' alone")
    network = efficientnet.EfficientNetLite0()
    name = "efficientnet_lite0"
    return _published(name, network, efficientnet.installed(), "bilinear224_pytorch", lambda found: found.logits)


def _published(name: str, network: nn.Module, params: Any, resizing: str, logits: Callable[[Any], Array]) -> Features:
    """The features of a network of images in [0, 255]. It runs in float32: accelerators would round to 16 bits."""

    def compute(params: Any, x: Array) -> tuple[Array, Array]:
        with jax.default_matmul_precision("float32"):
            found: Any = network.apply(params, x.astype(jnp.float32))
        return found.features, jax.nn.log_softmax(logits(found))

    return Features(name, compute, jax.tree.map(np.asarray, params), resizing)


FEATURES: dict[str, Callable[[str, Trained], Features]] = {
    "pixels": pixels,
    "run": of_run,
    "inception": lambda file, trained: inception(file, "tensorflow", "inception"),
    "inception_pytorch": lambda file, trained: inception(file, "pytorch", "inception_pytorch"),
    "efficientnet_lite0": efficientnet_lite0,
}


def features_of(trained: Trained) -> list[Features]:
    """The features that `evaluation.quality` names. They are loaded once.

    Raises:
        InputError: for an unknown name, or an argument that cannot be used.
    """
    return trained.once(("features", trained.options["quality"]), lambda: _loaded(trained))


def _loaded(trained: Trained) -> list[Features]:
    found: list[Features] = []
    for word in str(trained.options["quality"]).split(","):
        name, _, argument = word.strip().partition(":")
        made = choose("evaluation.quality", name, FEATURES)(argument, trained)
        if name != "pixels" and len(trained.test_set.shape) != 3:
            raise InputError(f"evaluation.quality={word.strip()!r} is for images; take 'pixels' for other data")
        jax.eval_shape(made.compute, made.params, jax.ShapeDtypeStruct((2, *trained.test_set.shape), jnp.uint8))
        if made.name in [other.name for other in found]:
            raise InputError(
                f"evaluation.quality={trained.options['quality']!r} names {made.name} twice; leave one out"
            )
        found.append(made)
    return found
