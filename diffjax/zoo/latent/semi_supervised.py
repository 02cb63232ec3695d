"""Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende & Welling 2014).

    m1          an auto-encoder, whose codes a classifier of another kind is given
    m2          a generative model of class and style, and its classifier q(y | x) (m2.py)
    m1m2        M2 of the codes z_1 ~ q(z_1 | x) of M1, drawn anew each time an example is seen
    supervised  the classifier of M2 alone, which learns from labelled examples only

The loss of an example is its share of J^α / N, and the labelled example that comes with it brings -α log q(y | x). M1
and M2 of the pair share no parameter and no gradient: one run trains both or, with `ssl.freeze_m1`, M2 alone on the M1
of another (`init_from`). Together they bound

    log p(x) ≥ E_q(z_1|x)[log p(x | z_1) - log q(z_1 | x) - U(z_1)]

Pixels are bits: those of the data or, with `ssl.binarize`, new ones each time an example is seen, each 1 with a
probability of its grey; features and classes are then those of the greys themselves.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import randomness
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.classification import Classification
from diffjax.evaluation.measure import Measure
from diffjax.evaluation.probe import Probe
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.zoo.figures import Figure, Figures, Grid
from diffjax.zoo.latent import m2
from diffjax.zoo.latent import networks as latent
from diffjax.zoo.latent.likelihoods import log_bits
from diffjax.zoo.model import Batch, Examples, Model, labels

MODELS = ("m1", "m2", "m1m2", "supervised")
STYLES = 10  # rows of the pictures


def make(config: Any) -> Model:
    """The Model of `config.{data, ssl, net}`, see configs/ssl_mnist.py; params are {"m1": ..., "m2": ...} as used.

    Raises:
        InputError: on data that are not images of bits, or a choice that does not exist.
    """
    _check(config)
    setting, net, shape = config.ssl, config.net, tuple(config.data.shape)
    num_classes, greys = config.data.num_classes, config.data.levels - 1
    classes = ("data.num_classes", num_classes)
    dim = math.prod(shape)
    stacked, supervised = setting.model == "m1m2", setting.model == "supervised"
    frozen = stacked and setting.freeze_m1
    features_of_m1 = tuple(net.features)
    encoder = latent.dense(features_of_m1, (dim,), (2 * net.latent,))
    decoder = latent.dense(features_of_m1[::-1], (net.latent,), (dim,))
    second = m2.m2(net.latent if stacked else dim, num_classes, net.style, tuple(net.units), bits=not stacked)

    def init_m1(key: Array) -> Any:
        keys = jax.random.split(key)
        return {"encoder": encoder.init(keys[0]), "decoder": decoder.init(keys[1])}

    def encode(params: Any, x: Array) -> Normal:
        """q(z_1 | x)."""
        return latent.normal(encoder.apply(params["m1"]["encoder"], x))

    def decode(params: Any, z: Array) -> Array:
        """The log-odds of the pixels."""
        return decoder.apply(params["m1"]["decoder"], z)

    def init(key: Array) -> Any:
        keys = jax.random.split(key)
        params = {"m1": init_m1(keys[0])} if setting.model in ("m1", "m1m2") else {}
        if setting.model == "m1":
            return params
        of_second = second.init(keys[1])
        return params | {"m2": {"classifier": of_second["classifier"]} if supervised else of_second}

    def means(image: Array) -> Array:
        """(batch, dim) in [0, 1]."""
        x = jnp.asarray(image)
        if not isinstance(x, jax.core.Tracer) and not (0 <= np.asarray(x).min() <= np.asarray(x).max() <= greys):
            raise InputError(f"the batch has values other than 0 .. data.levels - 1 = {greys}")
        return x.reshape(len(x), dim).astype(float) / greys

    def draw(key: randomness.Keys, image: Array) -> Array:
        """(batch, dim) bits."""
        x = means(image)
        return (randomness.uniform(key, x.shape, x.dtype) < x).astype(x.dtype) if setting.binarize else x

    def shown(key: randomness.Keys, image: Array) -> Array:
        """What is learned from: an M1 that learns no more needs no bits, its codes are those of the greys."""
        return means(image) if frozen else draw(key, image)

    def code(params: Any, key: randomness.Keys, x: Array) -> tuple[Normal, Array]:
        q = encode(params, x)
        return q, q.mean + jnp.sqrt(q.variance) * randomness.normal(key, q.mean.shape, q.mean.dtype)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        bits_key, code_key, style_key, labelled_key = randomness.split(key, 4)
        label, labelled = _labels(batch, classes)
        cost = jnp.zeros(len(label))
        if not supervised:
            x = shown(bits_key, batch["image"])
        if setting.model in ("m1", "m1m2"):
            q, z = code(params, code_key, x)
            if not frozen:
                cost += q.kl(latent.PRIOR).sum(-1) - log_bits(x, decode(params, z)).sum(-1)
            x = jax.lax.stop_gradient(z)
        if setting.model == "m1":
            return cost
        if not supervised:
            cost += m2.objective(second, params["m2"], style_key, x, label)
        known = seen(params, labelled_key, batch.get("labelled_image", batch["image"]))
        log_q = second.log_class(params["m2"], known)
        of_label = jnp.take_along_axis(log_q, labelled[:, None], axis=1)[:, 0]
        return cost - setting.alpha * jnp.where(labelled < 0, 0.0, of_label)

    def seen(params: Any, key: randomness.Keys, image: Array) -> Array:
        """What the classifier learns from: bits, or a draw of their code."""
        bits_key, code_key = randomness.split(key, 2)
        x = shown(bits_key, image)
        return jax.lax.stop_gradient(code(params, code_key, x)[1]) if stacked else x

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        bits_key, code_key, style_key = jax.random.split(key, 3)
        x = draw(bits_key, _image(batch))
        if setting.model == "m2":
            return m2.terms(second, params["m2"], style_key, x)
        q, z = code(params, code_key, x)
        reconstruction = {"reconstruction": -log_bits(x, decode(params, z)).sum(-1)}
        if setting.model == "m1":
            return reconstruction | {"latent": q.kl(latent.PRIOR).sum(-1)}
        of = m2.terms(second, params["m2"], style_key, z)
        of_code = of.pop("reconstruction") - q.entropy().sum(-1)  # E log q is known: no draw is needed
        return reconstruction | {"code": of_code} | of

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return -jnp.sum(jnp.stack(list(terms(params, key, batch).values())), axis=0)

    def features(params: Any, batch: Batch) -> Array:
        return encode(params, means(_image(batch))).mean

    def class_log_probs(params: Any, batch: Batch) -> Array:
        x = features(params, batch) if stacked else means(_image(batch))
        return second.log_class(params["m2"], x)

    def picture(x: Array) -> Array:
        """Probabilities of pixels (*batch, dim) as images in [-1, 1]."""
        return 2.0 * x.reshape(*x.shape[:-1], *shape) - 1.0

    def by_class(params: Any, z: Array) -> Array:
        """Images (n, classes, *shape) of styles (n, #classes, latent)."""
        x = second.mean(params["m2"], z)
        return picture(jax.nn.sigmoid(decode(params, x)) if stacked else x)

    def sample(params: Any, key: Array, num: int) -> Array:
        class_key, style_key, code_key = jax.random.split(key, 3)
        if setting.model == "m1":
            z = jax.random.normal(style_key, (num, net.latent))
            return picture(jax.nn.sigmoid(decode(params, z)))
        label = jax.random.randint(class_key, (num,), 0, num_classes)
        z = jax.random.normal(style_key, (num, 1, net.style))
        x = second.draw(params["m2"], code_key, z)[jnp.arange(num), label]
        return picture(jax.nn.sigmoid(decode(params, x)) if stacked else x)

    def reconstruct(params: Any, key: Array, batch: Batch) -> Array:
        return picture(jax.nn.sigmoid(decode(params, features(params, batch))))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """M1: images above what is decoded from the means of their codes.

        M2: "classes", a style a row and a class a column; "analogies", the same with the styles of the examples, which
        stand in the first column.
        """
        if supervised:
            return {}
        x = means(_image(batch))
        if setting.model == "m1":
            return {"reconstructions": Grid(jnp.concatenate([picture(x), reconstruct(params, key, batch)]), len(x))}
        x = x[:STYLES]
        inputs = features(params, {"image": _image(batch)[:STYLES]}) if stacked else x
        label = second.log_class(params["m2"], inputs).argmax(-1)
        style = second.style(params["m2"], inputs).mean[jnp.arange(len(x)), label][:, None]
        rows = jnp.concatenate([picture(x)[:, None], by_class(params, style)], axis=1)
        drawn = by_class(params, jax.random.normal(key, (STYLES, 1, net.style)))
        return {
            "analogies": Grid(rows.reshape(-1, *shape), num_classes + 1),
            "classes": Grid(drawn.reshape(-1, *shape), num_classes),
        }

    # The error of the classifier is the headline where there is one.
    measures: list[Measure] = [] if setting.model == "m1" else [Classification(class_log_probs)]
    if not supervised:
        measures.append(Bound(terms))
    if setting.model == "m1":
        measures.append(Reconstruction(reconstruct))
    if setting.model in ("m1", "m1m2"):
        measures.append(Probe(features))
    return Model(
        init,
        loss,
        None if supervised else bound,
        None if supervised else sample,
        examples=Examples(classes=None if setting.model == "m1" else classes),
        measures=measures,
        figures=Figures(own=figures),
    )


def _image(batch: Batch) -> Array:
    return batch["image"] if isinstance(batch, dict) else batch


def _labels(batch: Batch, classes: tuple[str, int]) -> tuple[Array, Array]:
    """Of the examples, -1 where unknown, and of the labelled ones beside them; without those, the same ones again."""
    label = labels(batch, classes)
    return label, labels(batch, classes, "labelled_label", least=0) if "labelled_label" in batch else label


def _check(config: Any) -> None:
    data, setting = config.data, config.ssl
    if setting.model not in MODELS:
        raise InputError(f"ssl.model must be one of {', '.join(MODELS)}, not {setting.model!r}")
    if len(data.shape) != 3 or data.levels < 2:
        raise InputError(f"data.shape={tuple(data.shape)}, data.levels={data.levels}: this system is of images")
    if data.levels != 2 and not setting.binarize:
        raise InputError(
            f"a Bernoulli likelihood needs bits, and data.levels={data.levels} are greys: set data.binarized=True and"
            " data.levels=2 for bits drawn once, or ssl.binarize=True for new ones each time an example is seen"
        )
    if not 0 <= setting.alpha < math.inf:
        raise InputError(f"ssl.alpha must be a finite number of at least 0, not {setting.alpha!r}")
    if not isinstance(data.num_classes, int) or data.num_classes < 2:
        raise InputError(f"data.num_classes must be an integer of at least 2, not {data.num_classes!r}")
