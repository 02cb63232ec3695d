"""Samples of a class from an unconditional diffusion and a classifier of noisy images (Dhariwal & Nichol 2021).

    loss     that of the base diffusion, plus -log p(y | x_t) at a random t
    sample   x_0 of p(x_0 | y), by score + scale ∇ log p(y | x_t): `conditioning.guided`          (their algorithm 2)

The two networks share no parameter: one run trains both, each on its own part of the loss (only the clipping of the
gradient's norm sees them together). Scale 1 is Bayes' rule, more puts a power of p(y | x) in its place, and 0 leaves
the diffusion as it is. Likelihoods and the pictures of the reverse process are those of the unconditional diffusion.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import conditioning, losses, predictions, randomness, samplers, sde
from diffjax.errors import InputError
from diffjax.nets.classifier import Classifier
from diffjax.processes import Gaussian
from diffjax.schedules import Discrete, Schedule, broadcast_to
from diffjax.zoo import ddpm, score
from diffjax.zoo.model import Batch, Figure, Grid, Model, grid, labels

BASES: dict[str, Callable[[Any], Model]] = {"ddpm": ddpm.make, "score": score.make}  # on images in [-1, 1]
SAMPLERS = ("ddim", "ancestral", "heun")
TABLE_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCALES = (0.0, 1.0, 3.0)  # of the table and the figure


def make(config: Any) -> Model:
    """The Model of `config.{base, classifier, guidance}` and of what the base needs, see configs/guided_digits.py.

    `sample` draws the classes in turn, image i of class i mod num_classes, or all of `guidance.label`. params are
    {"model": the base's, "classifier": ...}; batches need labels, in training and in `table`. The classifier learns
    nothing of an example whose label is -1, and is not judged by it.

    Raises:
        InputError: on an unknown base or sampler, a base that is itself conditioned on labels, or a scale, label or
            number of classes that cannot be.
    """
    _check(config)
    base = BASES[config.base](config)
    base_bound, base_terms = base.bound, base.terms
    assert base_bound is not None and base_terms is not None
    setting, guidance = config.classifier, config.guidance
    net = Classifier(
        num_classes=setting.num_classes,
        channels=setting.channels,
        multipliers=tuple(setting.multipliers),
        num_blocks=setting.num_blocks,
        dropout=setting.dropout,
        dtype=jnp.dtype(config.net.dtype),
    )
    shape = tuple(config.data.shape)

    def init(key: Array) -> Any:
        model_key, key = jax.random.split(key)
        classifier = net.init(key, jnp.zeros((1, *shape)), jnp.zeros(1))["params"]
        return {"model": base.init(model_key), "classifier": classifier}

    def kernels(params: Any) -> tuple[Any, predictions.Predict]:
        assert base.kernels is not None
        return base.kernels(params["model"])

    def log_probs(params: Any, xt: Array, t: Array, dropout: randomness.Keys | None = None) -> Array:
        """log p(y | x_t) of all classes, (batch, num_classes)."""
        schedule = kernels(params)[0].schedule
        power = broadcast_to(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, xt)  # 1 unless variance explodes
        logits = net.apply({"params": params["classifier"]}, xt / jnp.sqrt(power), 1000.0 * t, dropout)
        return jax.nn.log_softmax(jnp.asarray(logits))

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0, label = _unpack(config, batch)
        base_key, time_key, noise_key, dropout_key = randomness.split(key, 4)
        t = batch["t"] if "t" in batch else 1.0 - randomness.uniform(time_key, (len(x0),))
        xt = losses.draw(kernels(params)[0].marginal(x0, t), noise_key)
        log_p = _chosen(log_probs(params, xt, t, dropout_key), label)
        return base.loss(params["model"], base_key, batch) - jnp.where(label < 0, 0.0, log_p)

    def draw(params: Any, key: Array, label: Array, scale: ArrayLike) -> Array:
        process, predict = kernels(params)

        def log_r(xt: Array, t: Array) -> Array:
            return jnp.asarray(scale) * _chosen(log_probs(params, xt, t), label)

        guided = conditioning.guided(process, predict, log_r)
        times = _times(process.schedule, config.sampling.steps)
        return samplers.sample(_stepper(config, process), guided, key, times, (len(label), *shape))

    def sample(params: Any, key: Array, num: int) -> Array:
        label = jnp.arange(num) % setting.num_classes if guidance.label < 0 else jnp.full(num, guidance.label)
        return draw(params, key, label, guidance.scale)

    def picture(samples: Array) -> Figure:
        """A column for each class."""
        return grid(samples) if guidance.label >= 0 else Grid(samples, setting.num_classes)

    @jax.jit
    def at_scales(params: Any, key: Array, label: Array) -> Array:
        """The same noise guided at each of the scales: (scales, *label, *shape)."""
        return jax.lax.map(lambda scale: draw(params, key, label, scale), jnp.array(SCALES))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """The base's, and one draw of each class, a row for each scale."""
        base_key, key = jax.random.split(key)
        rows = at_scales(params, key, jnp.arange(setting.num_classes))
        return base.figures(params["model"], base_key, batch) | {
            "guidance": Grid(rows.reshape(-1, *shape), setting.num_classes)
        }

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        """How well the classifier reads noisy images, and how many guided samples are of the class asked for.

        The samples' judge has seen neither network: each is read as its nearest neighbour in the batch.
        """
        x0, label = _unpack(config, batch)
        x0, label = x0[label >= 0], label[label >= 0]
        if not len(label):
            return {}
        noise_key, key = jax.random.split(key)

        @jax.jit
        def read(t: Array) -> tuple[Array, Array]:
            xt = kernels(params)[0].marginal(x0, t).sample(noise_key)
            log_p = log_probs(params, xt, jnp.full(len(x0), t))
            return jnp.mean(log_p.argmax(-1) == label), -_chosen(log_p, label).mean()

        rows = {}
        for t in TABLE_TIMES:
            right, cost = read(jnp.asarray(t))
            rows[f"classifier at t = {t}"] = {"accuracy": float(right), "cross-entropy (nats)": float(cost)}
        others = _nearest(x0, x0, label, same=True)
        rows["held-out images, read by their neighbours"] = {"accuracy": float(jnp.mean(others == label))}
        asked = jnp.tile(jnp.arange(setting.num_classes), 20)
        for scale, samples in zip(SCALES, at_scales(params, key, asked), strict=True):
            right = jnp.mean(_nearest(samples, x0, label) == asked)
            rows[f"samples at scale {scale:g}, read by held-out neighbours"] = {"as asked": float(right)}
        return rows

    def log_prob(params: Any, key: Array, batch: Batch) -> Array:
        assert base.log_prob is not None
        return base.log_prob(params["model"], key, batch)

    return Model(
        init,
        loss,
        lambda params, key, batch: base_bound(params["model"], key, batch),
        sample,
        lambda params, key, batch: base_terms(params["model"], key, batch),
        figures,
        base.memory,
        picture,
        kernels=kernels,
        table=table,
        log_prob=log_prob,
        classes=("classifier.num_classes", setting.num_classes),
    )


def _times(schedule: Schedule, steps: int) -> Array:
    return samplers.spaced(schedule.times, steps) if isinstance(schedule, Discrete) else sde.times(schedule, steps)


def _stepper(config: Any, process: Gaussian) -> samplers.Stepper:
    match config.sampling.sampler:
        case "ddim":
            return samplers.ddim(process, config.sampling.get("eta", 0.0))
        case "ancestral":  # with the variance that the base has learned, or was given
            return samplers.ancestral(process, config.diffusion.variance if config.base == "ddpm" else "posterior")
    return samplers.heun(process)


def _chosen(log_p: Array, label: Array) -> Array:
    """log_p[i, label[i]] where label[i] is a class."""
    return jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]


def _nearest(x: Array, known: Array, label: Array, same: bool = False) -> Array:
    """The label of the nearest known image; of the nearest other one if x is the `same` images."""
    x, known = x.reshape(len(x), -1), jnp.asarray(known).reshape(len(known), -1)
    distance = ((x[:, None] - known) ** 2).sum(-1) + (jnp.diag(jnp.full(len(x), jnp.inf)) if same else 0.0)
    return label[distance.argmin(1)]


def _unpack(config: Any, batch: Batch) -> tuple[Array, Array]:
    label = labels(batch, ("classifier.num_classes", config.classifier.num_classes))
    image = jnp.asarray(batch["image"])
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) * (2.0 / (config.data.levels - 1)) - 1.0
    return image, label


def _check(config: Any) -> None:
    classifier, guidance, sampler = config.classifier, config.guidance, config.sampling.sampler
    if config.base not in BASES:
        raise InputError(f"base must be one of {', '.join(BASES)}, not {config.base!r}")
    if config.net.get("num_classes"):
        raise InputError(f"net.num_classes={config.net.num_classes} must be 0: guidance needs an unconditional network")
    if not isinstance(classifier.num_classes, int) or classifier.num_classes < 2:
        raise InputError(f"classifier.num_classes must be an integer of at least 2, not {classifier.num_classes!r}")
    if not 0 <= guidance.scale < math.inf:
        raise InputError(f"guidance.scale must be a finite number of at least 0, not {guidance.scale}")
    if not isinstance(guidance.label, int) or not -1 <= guidance.label < classifier.num_classes:
        classes = f"a class below classifier.num_classes={classifier.num_classes}"
        raise InputError(f"guidance.label must be {classes}, or -1 for all in turn, not {guidance.label!r}")
    if sampler not in SAMPLERS:
        raise InputError(f"sampling.sampler must be one of {', '.join(SAMPLERS)} for this system, not {sampler!r}")
