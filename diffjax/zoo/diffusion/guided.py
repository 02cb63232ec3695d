"""Samples of a class from an unconditional diffusion and a classifier of noisy images (Dhariwal & Nichol 2021).

    loss     that of the base diffusion, plus -log p(y | x_t) at a random t
    sample   x_0 of p(x_0 | y), by score + scale ∇ log p(y | x_t): `conditioning.guided`          (their algorithm 2)

The two networks share no parameter. One run trains both, each on its own part of the loss. Only the clipping of the
gradient's norm is for both together. Scale 1 is Bayes' rule, a larger scale uses a power of p(y | x), and 0 does not
change the diffusion. Likelihoods and pictures of the reverse process are those of the unconditional diffusion.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from diffjax import conditioning, losses, predictions, randomness, registry, samplers
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.evaluation.table import Table
from diffjax.nets.classifier import Classifier
from diffjax.processes import Gaussian
from diffjax.schedules import Schedule, broadcast_to
from diffjax.zoo.diffusion import ddpm, score
from diffjax.zoo.figures import Figure, Figures, Grid, columns
from diffjax.zoo.model import Batch, Examples, Model, labels, scaled

BASES: dict[str, Callable[[Any], Model]] = {"ddpm": ddpm.make, "score": score.make}  # on images in [-1, 1]
TABLE_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCALES = (0.0, 1.0, 3.0)  # of the table and the figure


class Guide(NamedTuple):
    """A base diffusion and the classifier that guides it. The fields are arguments of `guided`."""

    base: Model
    network: nn.Module
    shape: tuple[int, int, int]
    stepper: Callable[[Gaussian], samplers.Stepper]
    times: Callable[[Schedule], Array]

    def init(self, key: Array) -> Any:
        model_key, key = jax.random.split(key)
        classifier = self.network.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1))["params"]
        return {"model": self.base.init(model_key), "classifier": classifier}

    def kernels(self, params: Any) -> tuple[Any, predictions.Predict]:
        assert self.base.kernels is not None
        return self.base.kernels(params["model"])

    def log_probs(self, params: Any, xt: Array, t: Array, dropout: randomness.Keys | None = None) -> Array:
        """log p(y | x_t) of all classes, (batch, num_classes)."""
        schedule = self.kernels(params)[0].schedule
        power = broadcast_to(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, xt)  # 1 unless variance explodes
        logits = self.network.apply({"params": params["classifier"]}, xt / jnp.sqrt(power), 1000.0 * t, dropout)
        return jax.nn.log_softmax(jnp.asarray(logits))

    def draw(self, params: Any, key: Array, asked: Array, scale: ArrayLike) -> Array:
        """Samples of the classes `asked` (num,)."""
        process, predict = self.kernels(params)

        def log_r(xt: Array, t: Array) -> Array:
            return jnp.asarray(scale) * _chosen(self.log_probs(params, xt, t), asked)

        toward = conditioning.guided(process, predict, log_r)
        return samplers.sample(
            self.stepper(process), toward, key, self.times(process.schedule), (len(asked), *self.shape)
        )

    def at_scales(self, params: Any, key: Array, asked: Array) -> Array:
        """Samples from the same noise at each scale: (scales, *asked, *shape)."""
        return jax.lax.map(lambda scale: self.draw(params, key, asked, scale), jnp.array(SCALES))


def guided(
    base: Model,
    network: nn.Module,
    shape: tuple[int, int, int],
    levels: int,
    num_classes: int,
    *,
    stepper: Callable[[Gaussian], samplers.Stepper] = samplers.ddim,
    steps: int = 100,
    times: Callable[[Schedule], Array] | None = None,
    scale: float = 1.0,
    label: int = -1,
) -> Model:
    """A diffusion, and a classifier of its noisy images that guides it. Both are trained together.

    params are {"model": those of the base, "classifier": ...}. Batches need labels, in training and for the table. An
    example with label -1 is used neither to train nor to judge the classifier.

    Args:
        base: a diffusion of images (H, W, C) of `levels` levels, with `kernels` and without labels.
        network: (xt, 1000 t, dropout keys) -> (batch, num_classes), log-odds of the classes.
        stepper: from the process of the base to the stepper of guided samples.
        steps: the number of sampling steps.
        times: of sampling, from the base's schedule. The default is `steps` of `samplers.grid`.
        scale: of log p(y | x_t). 0 is no guidance.
        label: the class of all samples. -1 takes the classes in turn: image i has class i mod num_classes.
    """
    base_bound, base_terms, base_log_prob = base.bound, base.measure(Bound).terms, base.measure(Flow).log_prob
    assert base_bound is not None
    guide = Guide(base, network, shape, stepper, times or partial(samplers.grid, sampling={"steps": steps}))
    classes = ("classifier.num_classes", num_classes)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        known, x0 = labels(batch, classes), scaled(batch["image"], levels)
        base_key, time_key, noise_key, dropout_key = randomness.split(key, 4)
        t = batch["t"] if "t" in batch else 1.0 - randomness.uniform(time_key, (len(x0),))
        xt = losses.draw(guide.kernels(params)[0].marginal(x0, t), noise_key)
        log_p = _chosen(guide.log_probs(params, xt, t, dropout_key), known)
        return base.loss(params["model"], base_key, batch) - jnp.where(known < 0, 0.0, log_p)

    def sample(params: Any, key: Array, num: int) -> Array:
        return guide.draw(params, key, jnp.arange(num) % num_classes if label < 0 else jnp.full(num, label), scale)

    at_scales = jax.jit(guide.at_scales)

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """The figures of the base, and one draw of each class, with a row for each scale."""
        base_key, key = jax.random.split(key)
        rows = at_scales(params, key, jnp.arange(num_classes))
        own = {"guidance": Grid(rows.reshape(-1, *shape), num_classes)}
        return base.figures.own(params["model"], base_key, batch) | own

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        known, x0 = labels(batch, classes), scaled(batch["image"], levels)
        judge = Judge(
            guide.kernels(params)[0], partial(guide.log_probs, params), partial(at_scales, params), num_classes
        )
        return judge.table(key, x0[known >= 0], known[known >= 0])

    return Model(
        guide.init,
        loss,
        lambda params, key, batch: base_bound(params["model"], key, batch),
        sample,
        guide.kernels,
        base.memory,
        Examples(classes=classes),
        (
            Bound(lambda params, key, batch: base_terms(params["model"], key, batch)),
            Flow(lambda params, key, batch: base_log_prob(params["model"], key, batch)),
            Table(table),
        ),
        # A column for each class.
        Figures(columns(num_classes if label < 0 else 0), figures),
    )


class Judge(NamedTuple):
    """Measures how well the classifier reads noisy images, and how many guided samples have the class asked for.

    The samples are judged independently of both networks: by the class of the nearest held-out image.

    log_probs(xt, t) -> (batch, classes); at_scales(key, asked) -> (scales, *asked, *shape)
    """

    process: Gaussian
    log_probs: Callable[[Array, Array], Array]
    at_scales: Callable[[Array, Array], Array]
    num_classes: int

    def table(self, key: Array, x0: Array, label: Array) -> dict[str, dict[str, float]]:
        """The table for held-out images x0 (n, *shape) of known classes (n,)."""
        if not len(label):
            return {}
        noise_key, key = jax.random.split(key)

        @jax.jit
        def read(t: Array) -> tuple[Array, Array]:
            xt = self.process.marginal(x0, t).sample(noise_key)
            log_p = self.log_probs(xt, jnp.full(len(x0), t))
            return jnp.mean(log_p.argmax(-1) == label), -_chosen(log_p, label).mean()

        rows = {}
        for t in TABLE_TIMES:
            right, cost = read(jnp.asarray(t))
            rows[f"classifier at t = {t}"] = {"accuracy": float(right), "cross-entropy (nats)": float(cost)}
        others = _nearest(x0, x0, label, same=True)
        rows["held-out images, read by their neighbours"] = {"accuracy": float(jnp.mean(others == label))}
        asked = jnp.tile(jnp.arange(self.num_classes), 20)
        for scale, samples in zip(SCALES, self.at_scales(key, asked), strict=True):
            right = jnp.mean(_nearest(samples, x0, label) == asked)
            rows[f"samples at scale {scale:g}, read by held-out neighbours"] = {"as asked": float(right)}
        return rows


def make(config: Any) -> Model:
    """The Model of `config.{base, classifier, guidance}` and of what the base needs, see configs/guided_digits.py.

    Raises:
        InputError: on an unknown base or sampler, a base that is conditioned on labels, or a scale, label or number of
            classes out of range.
    """
    base = registry.choose("base", config.base, BASES)
    _check(config)
    setting, sampling, guidance = config.classifier, config.sampling, config.guidance
    # With the base's learned or given variance.
    variance = config.diffusion.variance if config.base == "ddpm" else "posterior"
    network = Classifier(
        num_classes=setting.num_classes,
        channels=setting.channels,
        multipliers=tuple(setting.multipliers),
        num_blocks=setting.num_blocks,
        dropout=setting.dropout,
        dtype=jnp.dtype(config.net.dtype),
    )
    return guided(
        base(config),
        network,
        tuple(config.data.shape),
        config.data.levels,
        setting.num_classes,
        stepper=lambda process: samplers.make(sampling.sampler, process, {**sampling, "variance": variance}),
        times=partial(samplers.grid, sampling=sampling),
        scale=guidance.scale,
        label=guidance.label,
    )


def _chosen(log_p: Array, label: Array) -> Array:
    """log_p[i, label[i]] where label[i] is a class."""
    return jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]


def _nearest(x: Array, known: Array, label: Array, same: bool = False) -> Array:
    """The label of the nearest known image; of the nearest other one if x is the `same` images."""
    x, known = x.reshape(len(x), -1), jnp.asarray(known).reshape(len(known), -1)
    distance = ((x[:, None] - known) ** 2).sum(-1) + (jnp.diag(jnp.full(len(x), jnp.inf)) if same else 0.0)
    return label[distance.argmin(1)]


def _check(config: Any) -> None:
    classifier, guidance = config.classifier, config.guidance
    if config.net.get("num_classes"):
        raise InputError(f"net.num_classes={config.net.num_classes} must be 0: guidance needs an unconditional network")
    if not isinstance(classifier.num_classes, int) or classifier.num_classes < 2:
        raise InputError(f"classifier.num_classes must be an integer of at least 2, not {classifier.num_classes!r}")
    if not 0 <= guidance.scale < math.inf:
        raise InputError(f"guidance.scale must be a finite number of at least 0, not {guidance.scale}")
    if not isinstance(guidance.label, int) or not -1 <= guidance.label < classifier.num_classes:
        classes = f"a class below classifier.num_classes={classifier.num_classes}"
        raise InputError(f"guidance.label must be {classes}, or -1 for all in turn, not {guidance.label!r}")
