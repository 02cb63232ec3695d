"""Denoising diffusion: DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021) on images.

The network gives one of eps, x0, v and score. The process, the bound and the samplers are those of the library, called
with the network as their `Predict`. Pixels with k levels 0 .. k-1 become 2 x/(k-1) - 1, and the bound is that of the
levels themselves: its last term is the probability of a level under the rounded Normal (Ho et al. 2020, eq. 13).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import bounds, losses, predictions, processes, randomness, registry, samplers, schedules, sde
from diffjax import time_sampling as times_of
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.memory import of_times
from diffjax.processes import Variance
from diffjax.zoo.diffusion import networks, pictures
from diffjax.zoo.diffusion.pictures import Reverse
from diffjax.zoo.figures import Figure, Figures
from diffjax.zoo.model import Batch, Examples, Model, bound_of, image_of, labels, scaled


class Denoiser(NamedTuple):
    """A network of noisy images, and the model p(x_{t-1} | x_t) that it makes. The fields are arguments of `ddpm`."""

    process: processes.Gaussian
    network: nn.Module
    shape: tuple[int, int, int]
    levels: int
    kind: predictions.Kind
    learned: bool
    clip: bool
    num_classes: int

    @property
    def classes(self) -> tuple[str, int] | None:
        return ("net.num_classes", self.num_classes) if self.num_classes else None

    def init(self, key: Array) -> Any:
        no_label = jnp.zeros(1, int) if self.num_classes else None
        return self.network.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1), no_label)["params"]

    def unpack(self, batch: Batch) -> tuple[Array, Array | None]:
        """Images in [-1, 1], and labels if the network is told them. It is told of no class where none is known."""
        x0 = scaled(image_of(batch), self.levels)
        if self.classes is None:
            return x0, None
        label = labels(batch, self.classes)
        return x0, jnp.where(label < 0, self.num_classes, label)

    def network_predict(
        self, params: Any, label: Array | None, dropout: randomness.Keys | None = None
    ) -> predictions.Predict:
        """What the network says: it is trained so."""

        def fn(xt: Array, t: Array) -> Array:
            return jnp.asarray(self.network.apply({"params": params}, xt, 1000.0 * t - 1.0, label, dropout))

        return predictions.predictor(self.kind, fn, self.learned)

    def predict(self, params: Any, label: Array | None) -> predictions.Predict:
        """Of the model p whose bound is reported and from which samples are drawn."""
        said = self.network_predict(params, label)
        return predictions.clip(said, self.process) if self.clip else said

    def kernels(self, params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        if self.num_classes:
            raise InputError("net.num_classes is set: a network that knows classes alone has no unconditional Predict")
        return self.process, self.predict(params, None)


def ddpm(
    process: processes.Gaussian,
    network: nn.Module,
    shape: tuple[int, int, int],
    levels: int,
    *,
    kind: predictions.Kind = "eps",
    variance: Variance = "forward",
    clip: bool = True,
    loss: str = "simple",
    loss_settings: Mapping[str, Any] = losses.DEFAULTS,
    time_sampler: times_of.TimeSampler | None = None,
    stepper: samplers.Stepper | None = None,
    sampling_steps: int | None = None,
    num_classes: int = 0,
    num_terms: int | None = None,
    conditioning: bool = False,
) -> Model:
    """Denoising diffusion of images (H, W, C) of `levels` levels.

    Args:
        process: of a discrete schedule.
        network: (xt, position, label, dropout keys) -> (batch, H, W, C), see `networks`; with `variance="learned"`
            twice the channels. `position` is DDPM's step index 0 .. 999, whatever the number of steps.
        kind: what the network predicts.
        variance: of the reverse kernel: "forward" (fixed large), "posterior" (fixed small), "learned".
        clip: whether the estimate of x_0 is clipped to [-1, 1], in samples and in the bound.
        loss: a name of `losses.LOSSES` or `losses.WEIGHTS`; a weight takes those of `loss_settings` that it names.
        time_sampler: how training draws its steps; `uniform` unless given.
        stepper: what samples are drawn by; `ancestral` unless given.
        sampling_steps: a number of the chain's steps; all unless given.
        num_classes: of labels that the network is told, 0 for none.
        num_terms: of the bound's steps, drawn for each example; all unless given.
        conditioning: whether the figures show denoising and inpainting.
    """
    num_steps, times = process.schedule.num_steps, process.schedule.times  # type: ignore[attr-defined]
    down = samplers.spaced(times, sampling_steps or num_steps)
    stepper = samplers.ancestral(process, variance) if stepper is None else stepper
    decoder = partial(DiscretizedNormal, num_bins=levels)
    cost = losses.chain_loss(loss, process, num_steps, kind, variance, decoder, loss_settings)
    denoiser = Denoiser(process, network, shape, levels, kind, variance == "learned", clip, num_classes)

    def training_loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0, label = denoiser.unpack(batch)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = times_of.uniform(num_steps).sample((), time_key, len(x0))[0] if given is None else given
        return cost(denoiser.network_predict(params, label, dropout_key), noise_key, x0, t)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        x0, label = denoiser.unpack(batch)
        costs = bounds.diffusion(process, denoiser.predict(params, label), key, x0, times, variance, decoder, num_terms)
        return {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}

    def log_prob(params: Any, key: Array, batch: Batch) -> Array:
        """The bound's prior and reconstruction, and the probability flow in place of all steps between."""
        x0, label = denoiser.unpack(batch)
        level = jnp.round((x0 + 1.0) * (levels - 1) / 2).astype(int)
        return sde.discrete_log_prob(process, denoiser.predict(params, label), key, level, levels, "forward", variance)

    def sample(params: Any, key: Array, num: int) -> Array:
        label_key, key = jax.random.split(key)
        label = jax.random.randint(label_key, (num,), 0, num_classes) if num_classes else None
        return samplers.sample(stepper, denoiser.predict(params, label), key, down, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        reverse = Reverse(process, denoiser.predict, stepper, down, variance)
        return pictures.of_chain(reverse, params, key, *denoiser.unpack(batch), times, decoder, conditioning)

    return Model(
        denoiser.init,
        training_loss,
        bound_of(terms),
        sample,
        denoiser.kernels,
        of_times(times_of.uniform(num_steps) if time_sampler is None else time_sampler),
        Examples(classes=denoiser.classes),
        (Bound(terms), Flow(log_prob)),
        Figures(own=figures),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/cifar10.py for the fields.

    Raises:
        InputError: on an unknown choice, or a combination that cannot be, e.g. a hybrid loss without learned variance.
    """
    setting, sampling = config.diffusion, config.sampling
    process = processes.gaussian(schedule_of(setting))
    _check(config)
    channels, variance = config.data.shape[-1], setting.variance
    network = networks.of_images(config.net, 2 * channels if variance == "learned" else channels)
    time_sampler = registry.choose("diffusion.time_sampling", setting.time_sampling, times_of.TIME_SAMPLERS)
    return ddpm(
        process,
        network,
        tuple(config.data.shape),
        config.data.levels,
        kind=setting.prediction,
        variance=variance,
        clip=setting.clip,
        loss=setting.loss,
        loss_settings=setting,
        time_sampler=time_sampler(setting.num_steps),
        stepper=samplers.make(sampling.sampler, process, {**sampling, "variance": variance}),
        sampling_steps=sampling.steps,
        num_classes=config.net.num_classes,
        num_terms=config.evaluation.num_terms or None,
        conditioning=config.evaluation.conditioning,
    )


def schedule_of(setting: Any) -> schedules.Discrete:
    """The chain of `config.diffusion`. Its `betas` are the ends of the linear schedule."""
    ends = tuple(setting.betas)
    if len(ends) != 2 or not all(isinstance(beta, float | int) for beta in ends):
        raise InputError(f"diffusion.betas = {ends} must be two numbers, the first and the last beta")
    settings = {"num_steps": setting.num_steps, "beta_start": ends[0], "beta_end": ends[1]}
    return schedules.make(setting.schedule, settings, schedules.CHAINS, "diffusion.schedule")


def _check(config: Any) -> None:
    setting, learned = config.diffusion, config.diffusion.variance == "learned"
    if len(config.data.shape) != 3 or config.data.levels < 2:
        shape, levels = tuple(config.data.shape), config.data.levels
        raise InputError(
            f"ddpm models images of at least 2 levels: data.shape=(H, W, C), not {shape} of {levels} levels"
        )
    num_classes = config.net.num_classes
    if not isinstance(num_classes, int) or num_classes < 0:
        raise InputError(f"net.num_classes must be an integer of at least 0, 0 for no classes, not {num_classes!r}")
    registry.choose("diffusion.loss", setting.loss, losses.LOSSES | losses.WEIGHTS)
    if setting.loss == "hybrid" and (not learned or setting.prediction != "eps"):
        raise InputError("diffusion.loss='hybrid' needs diffusion.variance='learned' and diffusion.prediction='eps'")
    if learned and setting.loss not in ("hybrid", "vlb"):
        raise InputError(f"diffusion.variance='learned' is not taught by diffusion.loss={setting.loss!r}: use 'hybrid'")
    registry.choose("diffusion.prediction", setting.prediction, predictions.KINDS)
    registry.choose("diffusion.variance", setting.variance, ("posterior", "forward", "learned"))
    if setting.num_steps == 1 and setting.variance != "forward":
        raise InputError(f"diffusion.num_steps=1 has no diffusion.variance={setting.variance!r}: use 'forward'")
    if not 1 <= config.sampling.steps <= setting.num_steps:
        limit = f"diffusion.num_steps={setting.num_steps}"
        raise InputError(f"sampling.steps must be from 1 to {limit}, not {config.sampling.steps}")
