"""Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende & Welling 2014).

    m1          an auto-encoder. Another classifier uses its codes
    m2          a generative model of class and style, with its classifier q(y | x) (m2.py)
    m1m2        M2 of the codes z_1 ~ q(z_1 | x) of M1, which are drawn again each time an example is seen
    supervised  the classifier of M2 alone, trained on labelled examples only

The loss of an example is its share of J^α / N. The labelled example beside it adds -α log q(y | x). In m1m2, M1 and M2
share no parameter and no gradient. One run trains both, or with `ssl.freeze_m1` M2 alone on the M1 of another run
(`init_from`). Together they have the bound

    log p(x) ≥ E_q(z_1|x)[log p(x | z_1) - log q(z_1 | x) - U(z_1)]
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import randomness, registry
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.measure import Measure
from diffjax.evaluation.probe import Probe
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import m2
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.m1 import Coder, Pixels, m1
from diffjax.zoo.model import Batch, Examples, Model, bound_of, image_of, labels

STYLES = 10  # rows of the pictures


class Classes(NamedTuple):
    """M2 of pixels or, with `coder`, of the codes of M1. params are {"m1": those of the coder, "m2": ...}."""

    pixels: Pixels
    second: m2.M2
    num_classes: int
    style: int
    coder: Coder | None = None

    def init(self, key: Array) -> Any:
        keys = jax.random.split(key)
        first = {} if self.coder is None else {"m1": self.coder.init(keys[0])}
        return first | {"m2": self.second.init(keys[1])}

    def features(self, params: Any, batch: Batch) -> Array:
        """The input of M2, without noise."""
        x = self.pixels.means(image_of(batch))
        return x if self.coder is None else self.coder.encode(params["m1"], x).mean

    def log_probs(self, params: Any, batch: Batch) -> Array:
        """log q(y | x), (batch, classes)."""
        return self.second.log_class(params["m2"], self.features(params, batch))

    def picture(self, params: Any, x: Array) -> Array:
        """Images of inputs of M2, (*batch, dim)."""
        return self.pixels.picture(x if self.coder is None else self.coder.decode(params["m1"], x))

    def by_class(self, params: Any, z: Array) -> Array:
        """Images (n, classes, *shape) of styles (n, #classes, style)."""
        return self.picture(params, self.second.mean(params["m2"], z))

    def sample(self, params: Any, key: Array, num: int) -> Array:
        class_key, style_key, code_key = jax.random.split(key, 3)
        label = jax.random.randint(class_key, (num,), 0, self.num_classes)
        z = jax.random.normal(style_key, (num, 1, self.style))
        return self.picture(params, self.second.draw(params["m2"], code_key, z)[jnp.arange(num), label])

    def figures(self, params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """Two pictures. Each row has one style, each column one class.

        "classes": styles from the prior. "analogies": styles of the examples, which are in the first column.
        """
        image, shape = image_of(batch)[:STYLES], self.pixels.shape
        inputs = self.features(params, image)
        label = self.second.log_class(params["m2"], inputs).argmax(-1)
        style = self.second.style(params["m2"], inputs).mean[jnp.arange(len(image)), label][:, None]
        shown = self.pixels.picture(self.pixels.means(image))[:, None]
        rows = jnp.concatenate([shown, self.by_class(params, style)], axis=1)
        drawn = self.by_class(params, jax.random.normal(key, (STYLES, 1, self.style)))
        return {
            "analogies": Grid(rows.reshape(-1, *shape), self.num_classes + 1),
            "classes": Grid(drawn.reshape(-1, *shape), self.num_classes),
        }


def semi_supervised(
    pixels: Pixels,
    second: m2.M2,
    num_classes: int,
    style: int,
    *,
    coder: Coder | None = None,
    alpha: float = 0.1,
    freeze_m1: bool = False,
) -> Model:
    """M2 or, with `coder`, M1 and M2. Batches have "label", which is -1 if it is not known.

    A batch may also have labelled examples, "labelled_image" and "labelled_label". If it has none, its own examples
    take their place.

    Args:
        pixels: the images.
        second: M2 of `pixels.dim` bits or, with `coder`, of `coder.dim` real numbers.
        style: the dimension of the style z.
        coder: M1.
        alpha: the weight of -log q(y | x) of the labelled examples.
        freeze_m1: whether M1 stays as it is, and M2 alone is trained.
    """
    of = Classes(pixels, second, num_classes, style, coder)
    classes, frozen = ("data.num_classes", num_classes), coder is not None and freeze_m1

    def seen(params: Any, bits_key: randomness.Keys, code_key: randomness.Keys, image: Array) -> tuple[Array, Array]:
        """The cost of M1, and the input of M2. If M1 is frozen no bits are drawn: its codes are those of the greys."""
        x = pixels.means(image) if frozen else pixels.draw(bits_key, image)
        if coder is None:
            return jnp.zeros(len(x)), x
        q, z = coder.code(params["m1"], code_key, x)
        cost = jnp.zeros(len(x)) if frozen else coder.cost(params["m1"], q, x, z)
        return cost, jax.lax.stop_gradient(z)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        bits_key, code_key, style_key, labelled_key = randomness.split(key, 4)
        label, labelled = _labels(batch, classes)
        cost, x = seen(params, bits_key, code_key, batch["image"])
        cost += m2.objective(second, params["m2"], style_key, x, label)
        bits_key, code_key = randomness.split(labelled_key, 2)
        _, known = seen(params, bits_key, code_key, batch.get("labelled_image", batch["image"]))
        return cost - alpha * _log_q(second, params["m2"], known, labelled)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        bits_key, code_key, style_key = jax.random.split(key, 3)
        x = pixels.draw(bits_key, image_of(batch))
        if coder is None:
            return m2.terms(second, params["m2"], style_key, x)
        q, z = coder.code(params["m1"], code_key, x)
        parts = m2.terms(second, params["m2"], style_key, z)
        of_code = parts.pop("reconstruction") - q.entropy().sum(-1)  # E log q is known in closed form
        return {"reconstruction": -coder.log_likelihood(params["m1"], x, z), "code": of_code} | parts

    # The error of the classifier is the headline.
    measures: list[Measure] = [Classification(of.log_probs), Bound(terms)]
    if coder is not None:
        measures.append(Probe(of.features))
    return Model(
        of.init,
        loss,
        bound_of(terms),
        of.sample,
        examples=Examples(classes=classes),
        measures=measures,
        figures=Figures(own=of.figures),
    )


def supervised(pixels: Pixels, second: m2.M2, num_classes: int, *, alpha: float = 0.1) -> Model:
    """The classifier of M2 alone, trained on labelled examples only. Arguments as in `semi_supervised`."""
    classes = ("data.num_classes", num_classes)

    def init(key: Array) -> Any:
        return {"m2": {"classifier": second.init(jax.random.split(key)[1])["classifier"]}}

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        _, labelled = _labels(batch, classes)
        bits_key, _ = randomness.split(randomness.split(key, 4)[3], 2)
        x = pixels.draw(bits_key, batch.get("labelled_image", batch["image"]))
        return -alpha * _log_q(second, params["m2"], x, labelled)

    def log_probs(params: Any, batch: Batch) -> Array:
        return second.log_class(params["m2"], pixels.means(image_of(batch)))

    return Model(init, loss, examples=Examples(classes=classes), measures=[Classification(log_probs)])


def _log_q(second: m2.M2, params: Any, x: Array, label: Array) -> Array:
    """log q(label | x). It is 0 if the label is not known."""
    log_q = second.log_class(params, x)
    return jnp.where(label < 0, 0.0, jnp.take_along_axis(log_q, label[:, None], axis=1)[:, 0])


def _labels(batch: Batch, classes: tuple[str, int]) -> tuple[Array, Array]:
    """The labels of the examples, -1 if unknown, and of the labelled examples; without these, the first again."""
    label = labels(batch, classes)
    return label, labels(batch, classes, "labelled_label", least=0) if "labelled_label" in batch else label


def make(config: Any) -> Model:
    """The Model of `config.{data, ssl, net}`, see configs/ssl_mnist.py.

    Raises:
        InputError: on data that are not images of bits, or a choice that does not exist.
    """
    build = registry.choose("ssl.model", config.ssl.model, MODELS)
    _check(config)
    return build(config, Pixels(tuple(config.data.shape), config.data.levels, config.ssl.binarize))


def _m1(config: Any, pixels: Pixels) -> Model:
    return m1(pixels, _coder(config.net, pixels))


def _m2(config: Any, pixels: Pixels) -> Model:
    second = _second(config, pixels.dim, bits=True)
    return semi_supervised(pixels, second, config.data.num_classes, config.net.style, alpha=config.ssl.alpha)


def _m1m2(config: Any, pixels: Pixels) -> Model:
    setting, net = config.ssl, config.net
    return semi_supervised(
        pixels,
        _second(config, net.latent, bits=False),
        config.data.num_classes,
        net.style,
        coder=_coder(net, pixels),
        alpha=setting.alpha,
        freeze_m1=setting.freeze_m1,
    )


def _supervised(config: Any, pixels: Pixels) -> Model:
    return supervised(pixels, _second(config, pixels.dim, bits=True), config.data.num_classes, alpha=config.ssl.alpha)


MODELS: dict[str, Callable[[Any, Pixels], Model]] = {"m1": _m1, "m2": _m2, "m1m2": _m1m2, "supervised": _supervised}


def _coder(net: Any, pixels: Pixels) -> Coder:
    features = tuple(net.features)
    encoder = latent.dense(features, (pixels.dim,), (2 * net.latent,))
    return Coder(net.latent, encoder, latent.dense(features[::-1], (net.latent,), (pixels.dim,)))


def _second(config: Any, dim: int, bits: bool) -> m2.M2:
    return m2.m2(dim, config.data.num_classes, config.net.style, tuple(config.net.units), bits=bits)


def _check(config: Any) -> None:
    data, setting = config.data, config.ssl
    if len(data.shape) != 3 or data.levels < 2:
        raise InputError(f"data.shape={tuple(data.shape)}, data.levels={data.levels}: this system is for images")
    if data.levels != 2 and not setting.binarize:
        raise InputError(
            f"a Bernoulli likelihood needs bits, and data.levels={data.levels} are greys: set data.binarized=True and"
            " data.levels=2 for bits drawn once, or ssl.binarize=True for new ones each time an example is seen"
        )
    if not 0 <= setting.alpha < math.inf:
        raise InputError(f"ssl.alpha must be a finite number of at least 0, not {setting.alpha!r}")
    if not isinstance(data.num_classes, int) or data.num_classes < 2:
        raise InputError(f"data.num_classes must be an integer of at least 2, not {data.num_classes!r}")
