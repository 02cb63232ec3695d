"""Denoising diffusion: DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021) on images.

The network predicts eps, x0, v, score or velocity. Process, bound and samplers are those of the library, with the
network as their `Predict`. Pixels with k levels 0 .. k-1 become 2 x/(k-1) - 1. The bound is on the probability of the
levels: its last term is the probability of a level under the rounded Normal (Ho et al. 2020, eq. 13).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flax import linen as nn
from jax import Array

from diffjax import bounds, coding, losses, predictions, processes, randomness, registry, samplers, schedules
from diffjax import time_sampling as times_of
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.code import Code
from diffjax.evaluation.flow import Flow
from diffjax.memory import of_times
from diffjax.processes import Variance
from diffjax.zoo.diffusion import networks, pictures
from diffjax.zoo.diffusion.denoiser import NO_GUIDANCE, Denoiser, Guidance, guidance_of
from diffjax.zoo.diffusion.pictures import Reverse
from diffjax.zoo.figures import Figure, Figures, columns
from diffjax.zoo.model import Batch, Examples, Model, bound_of


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
    sampling_times: Array | None = None,
    num_classes: int = 0,
    label_dropout: float = 0.0,
    guidance: Guidance = NO_GUIDANCE,
    num_terms: int | None = None,
    conditioning: bool = False,
) -> Model:
    """Denoising diffusion of images (H, W, C) of `levels` levels.

    Args:
        process: one of a discrete schedule.
        network: (xt, position 0 .. 999, label, dropout keys) -> (batch, H, W, C), see `networks`. With
            `variance="learned"` it has twice the channels.
        kind: what the network predicts.
        variance: of the reverse kernel: "forward" (fixed large), "posterior" (fixed small), "learned".
        clip: whether the estimate of x_0 is clipped to [-1, 1], in samples and in the bound.
        loss: a name of `losses.LOSSES` or `losses.WEIGHTS`. A weight takes those of `loss_settings` that it names.
        time_sampler: draws the steps of training. The default is `uniform`.
        stepper, sampling_times: draw the samples. The default is `ancestral` on the times of the chain.
        num_classes, label_dropout: the classes that the network is told, 0 for none; how often it is told no class.
        guidance: for samples, if there are classes.
        num_terms: the number of the bound's steps to draw for each example. The default is all.
        conditioning: whether the figures show denoising and inpainting.
    """
    num_steps, times = process.schedule.num_steps, process.schedule.times  # type: ignore[attr-defined]
    down = times[::-1] if sampling_times is None else sampling_times
    stepper = samplers.ancestral(process, variance) if stepper is None else stepper
    decoder = partial(DiscretizedNormal, num_bins=levels)
    cost = losses.chain_loss(loss, process, num_steps, kind, variance, decoder, loss_settings)
    denoiser = Denoiser(process, network, shape, levels, kind, variance == "learned", clip, num_classes, label_dropout)

    def training_loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0, label = denoiser.unpack(batch)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = times_of.uniform(num_steps).sample((), time_key, len(x0))[0] if given is None else given
        told = denoiser.dropped(randomness.fold_in(key, 4), label)
        return cost(denoiser.network_predict(params, told, dropout_key), noise_key, x0, t)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        x0, label = denoiser.unpack(batch)
        costs = bounds.diffusion(process, denoiser.predict(params, label), key, x0, times, variance, decoder, num_terms)
        return {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}

    def sample(params: Any, key: Array, num: int) -> Array:
        label = guidance.labels(num, num_classes) if num_classes else None
        return samplers.sample(stepper, denoiser.guided(params, label, guidance), key, down, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        reverse = Reverse(process, denoiser.predict, stepper, down, variance)
        return pictures.of_chain(reverse, params, key, *denoiser.unpack(batch), times, decoder, conditioning)

    def codec(params: Any) -> coding.Chain:
        predict = partial(denoiser.predict, label=None)
        return coding.Chain(process, predict, params, times, variance, decoder, shape, levels)

    codes = () if num_classes else (Code(codec),)
    return Model(
        denoiser.init,
        training_loss,
        bound_of(terms),
        sample,
        lambda params: denoiser.kernels(params, guidance),
        of_times(times_of.uniform(num_steps) if time_sampler is None else time_sampler),
        Examples(classes=denoiser.classes),
        (Bound(terms), Flow(partial(denoiser.log_prob, variance)), *codes),
        Figures(samples=columns(num_classes if guidance.label < 0 else 0), own=figures),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/cifar10.py for the fields.

    Raises:
        InputError: on an unknown choice, or an impossible combination, e.g. a hybrid loss without learned variance.
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
        sampling_times=samplers.grid(process.schedule, sampling),
        num_classes=config.net.num_classes,
        label_dropout=setting.get("label_dropout", 0.0),
        guidance=guidance_of(config, "diffusion"),
        num_terms=config.evaluation.num_terms or None,
        conditioning=config.evaluation.conditioning,
    )


def schedule_of(setting: Any) -> schedules.Discrete:
    """The schedule of `config.diffusion`. `betas` are the two ends of the linear schedule."""
    ends = tuple(setting.betas)
    if len(ends) != 2 or not all(isinstance(beta, float | int) for beta in ends):
        raise InputError(f"diffusion.betas = {ends} must be two numbers, the first and the last beta")
    settings = {"num_steps": setting.num_steps, "beta_start": ends[0], "beta_end": ends[1]}
    chain = schedules.make(setting.schedule, settings, schedules.CHAINS, "diffusion.schedule")
    return schedules.zero_terminal_snr(chain) if setting.get("zero_terminal_snr", False) else chain


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
    if setting.get("zero_terminal_snr", False) and setting.prediction in ("eps", "score"):
        raise InputError(
            f"diffusion.prediction={setting.prediction!r} says nothing about x_0 at zero terminal SNR, where x_1 is"
            " pure noise: use 'v' or 'x0'"
        )
    if not 0 <= setting.get("label_dropout", 0.0) < 1:
        raise InputError(f"diffusion.label_dropout must be a probability below 1, not {setting.label_dropout}")
    if setting.num_steps == 1 and setting.variance != "forward":
        raise InputError(f"diffusion.num_steps=1 has no diffusion.variance={setting.variance!r}: use 'forward'")
    if not config.sampling.get("spacing") and not 1 <= config.sampling.steps <= setting.num_steps:
        limit = f"diffusion.num_steps={setting.num_steps}"
        raise InputError(f"sampling.steps must be from 1 to {limit}, not {config.sampling.steps}")
