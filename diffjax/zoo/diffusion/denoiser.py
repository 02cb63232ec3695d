"""A network of noisy images or vectors as the model p(x_{t-1} | x_t), with or without a class, and its own guidance.

In training a label is replaced by "no class" with probability `label_dropout`. So one network gives both predictions of
classifier-free guidance (Ho & Salimans 2022, algorithm 1).
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from diffjax import conditioning, predictions, processes, randomness, sde
from diffjax.errors import InputError
from diffjax.zoo.model import Batch, image_of, labels, scaled


class Guidance(NamedTuple):
    """The guidance of samples of a class-conditional model: `conditioning.classifier_free` and a threshold.

    scale: w. 1 is the conditional model, which needs one evaluation of the network and no label dropout. 0 is the
        unconditional model
    label: the class of all samples. -1 takes the classes in turn
    interval, rescale, parallel: see `conditioning.classifier_free`
    threshold: the quantile of `predictions.dynamic_threshold`. 0 means no threshold
    limit: the largest norm of the difference of the two estimates, see `conditioning.classifier_free`. 0: no limit
    """

    scale: ArrayLike = 1.0
    label: int = -1
    interval: tuple[ArrayLike, ArrayLike] = (0.0, 1.0)
    rescale: ArrayLike = 0.0
    parallel: ArrayLike = 1.0
    threshold: float = 0.0
    limit: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether it does not change the conditional model, as far as the values are known."""
        return isinstance(self.scale, float | int) and self.scale == 1

    def labels(self, num: int, num_classes: int) -> Array:
        """The classes of `num` samples, (num,)."""
        return jnp.arange(num) % num_classes if self.label < 0 else jnp.full(num, self.label)


NO_GUIDANCE = Guidance()


class Denoiser(NamedTuple):
    """The fields are arguments of `ddpm`."""

    process: processes.Gaussian
    network: nn.Module
    shape: tuple[int, ...]
    levels: int
    kind: predictions.Kind
    learned: bool
    clip: bool
    num_classes: int
    label_dropout: float = 0.0

    @property
    def classes(self) -> tuple[str, int] | None:
        return ("net.num_classes", self.num_classes) if self.num_classes else None

    def init(self, key: Array) -> Any:
        no_label = jnp.zeros(1, int) if self.num_classes else None
        return self.network.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1), *self._told(no_label, None))["params"]

    def unpack(self, batch: Batch) -> tuple[Array, Array | None]:
        """Images in [-1, 1], and labels if the network takes them. An unknown class becomes "no class"."""
        x0 = scaled(image_of(batch), self.levels)
        if self.classes is None:
            return x0, None
        label = labels(batch, self.classes)
        return x0, jnp.where(label < 0, self.num_classes, label)

    def dropped(self, key: randomness.Keys, label: Array | None) -> Array | None:
        """The labels, each replaced by "no class" with probability `label_dropout`."""
        if label is None or not self.label_dropout:
            return label
        return jnp.where(randomness.uniform(key, label.shape) < self.label_dropout, self.num_classes, label)

    def network_predict(
        self, params: Any, label: Array | None, dropout: randomness.Keys | None = None
    ) -> predictions.Predict:
        """The network's own prediction, as it is trained."""

        def fn(xt: Array, t: Array) -> Array:
            told = self._told(label, dropout)
            return jnp.asarray(self.network.apply({"params": params}, xt, 1000.0 * t - 1.0, *told))

        return predictions.predictor(self.kind, fn, self.learned)

    def predict(self, params: Any, label: Array | None) -> predictions.Predict:
        """The Predict of the model p whose bound is reported, and of samples without guidance."""
        said = self.network_predict(params, label)
        return predictions.clip(said, self.process) if self.clip else said

    def guided(self, params: Any, label: Array | None, guidance: Guidance) -> predictions.Predict:
        """The Predict of samples: p(x_0 | label), label (batch,), with guidance. Without classes it is `predict`."""
        if label is None:
            return self.predict(params, None)
        said = self.network_predict(params, label)
        if not guidance.plain:
            self._check_unconditional(f"guidance.scale={guidance.scale}")
            nothing = self.network_predict(params, jnp.full_like(label, self.num_classes))
            said = conditioning.classifier_free(
                said,
                nothing,
                self.process,
                guidance.scale,
                guidance.interval,
                guidance.rescale,
                guidance.parallel,
                guidance.limit or math.inf,
            )
        if guidance.threshold:
            return predictions.dynamic_threshold(said, self.process, guidance.threshold)
        return predictions.clip(said, self.process) if self.clip else said

    def log_prob(self, variance: processes.Variance, params: Any, key: Array, batch: Batch) -> Array:
        """Prior and reconstruction as in the bound, with the probability flow in place of the steps between. Nats."""
        x0, label = self.unpack(batch)
        level = jnp.round((x0 + 1.0) * (self.levels - 1) / 2).astype(int)
        predict = self.predict(params, label)
        return sde.discrete_log_prob(self.process, predict, key, level, self.levels, "forward", variance)

    def kernels(self, params: Any, guidance: Guidance) -> tuple[processes.Gaussian, predictions.Predict]:
        """The process and a Predict for any batch: of the class in `guidance`, guided, or of no class.

        Raises:
            InputError: if `guidance` has no class and the network has only learned classes.
        """
        if not self.num_classes:
            return self.process, self.predict(params, None)
        asked = guidance.label >= 0
        if not asked:
            self._check_unconditional("guidance.label=-1")
            guidance = Guidance(threshold=guidance.threshold)

        def predict(xt: Array, t: Array) -> predictions.Prediction:
            label = jnp.full(xt.shape[0], guidance.label if asked else self.num_classes)
            return self.guided(params, label, guidance)(xt, t)

        return self.process, predict

    def _told(self, label: Array | None, dropout: randomness.Keys | None) -> tuple[Any, ...]:
        """The inputs of a network beside x and the time. A network of vectors has none."""
        return (label, dropout) if len(self.shape) == 3 else ()

    def _check_unconditional(self, what: str) -> None:
        if not self.label_dropout:
            raise InputError(
                f"{what} needs an unconditional prediction, which this network has never learned: train it with "
                "label_dropout=0.1, or ask for a class by guidance.label and guidance.scale=1"
            )


def guidance_of(config: Any, section: str) -> Guidance:
    """The guidance of `config.guidance`, if there is one. `section` has the label dropout.

    Raises:
        InputError: on guidance of a model without classes, or on numbers out of range.
    """
    num_classes = config.net.get("num_classes", 0)
    if "guidance" not in config or config.system == "guided":  # its guidance is by a classifier
        return NO_GUIDANCE
    if not num_classes:
        raise InputError("guidance needs a model that knows classes: set net.num_classes and label_dropout")
    given, found = config.guidance, Guidance(**config.guidance)
    if not isinstance(given.label, int) or not -1 <= given.label < num_classes:
        classes = f"a class below net.num_classes={num_classes}"
        raise InputError(f"guidance.label must be {classes}, or -1 for all in turn, not {given.label!r}")
    for name in ("scale", "rescale", "parallel", "limit"):
        if not 0 <= (value := given.get(name, 0.0)) < math.inf:
            raise InputError(f"guidance.{name} must be a finite number of at least 0, not {value}")
    low, high = given.interval
    if not 0 <= low <= high <= 1:
        raise InputError(f"guidance.interval={(low, high)} must be two times within [0, 1], in ascending order")
    if not 0 <= given.threshold <= 1:
        raise InputError(f"guidance.threshold must be a quantile in (0, 1], or 0 for none, not {given.threshold}")
    if not found.plain and not config[section].get("label_dropout", 0.0):
        raise InputError(
            f"guidance.scale={found.scale} needs an unconditional prediction: train with {section}.label_dropout=0.1"
        )
    return found
