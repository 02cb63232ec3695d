"""Flow matching (Lipman et al. 2023; Liu et al. 2023; Albergo & Vanden-Eijnden 2023), of vectors and images.

The network is the velocity û(x_t, t). It learns the mean of dx_t/dt = alpha' x_0 + sigma' eps given x_t. On the
straight schedule this is eps - x_0. Its flow from t = 1 to t = 0 carries noise to data and has an exact likelihood. The
velocity is a prediction like the others. So all samplers, guidance and inverse problems of the library can use it.

Paths may also begin in another set, or at noisy data, and optimal transport may pair their ends (`sources`). Such a
flow has no score. From another set it has no likelihood either, and its samples need examples of that set to begin
from.

Uniform noise makes levels of the data continuous (`zoo.model.dequantised`). So the density of the flow bounds their
probability.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import losses, predictions, processes, randomness, samplers, schedules, sde
from diffjax import time_sampling as times_of
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.measure import Measure
from diffjax.evaluation.reconstruction import Reconstruction
from diffjax.evaluation.table import Table
from diffjax.memory import of_times
from diffjax.zoo.diffusion import flow_pictures, networks, pictures, sources
from diffjax.zoo.diffusion.denoiser import NO_GUIDANCE, Denoiser, Guidance, guidance_of
from diffjax.zoo.diffusion.sources import Source
from diffjax.zoo.figures import Figure, Figures, columns
from diffjax.zoo.model import Batch, Examples, Model, bound_of, dequantised, image_of, units_of


def flow_matching(
    process: processes.Gaussian,
    network: nn.Module,
    shape: tuple[int, ...],
    levels: int = 0,
    *,
    time_sampler: times_of.TimeSampler | None = None,
    stepper: samplers.Stepper | None = None,
    times: Array | None = None,
    num_classes: int = 0,
    label_dropout: float = 0.0,
    guidance: Guidance = NO_GUIDANCE,
    conditioning_steps: int = 0,
    source: Source = sources.NOISE,
) -> Model:
    """Flow matching of vectors or images of `shape`.

    Args:
        process: of a continuous schedule: `schedules.straight`, or `vp` and others, whose probability flow this is.
        network: (x_t, position 1000 t - 1) -> the velocity. Networks of images also take labels or None, and dropout
            keys.
        levels: the number of levels of the data. 0 for real numbers.
        time_sampler: draws the times of training. The default is uniform on (0, 1).
        stepper, times: draw the samples; times descend from 1 to 0. The default is 50 steps of `euler`.
        num_classes, label_dropout, guidance: as in `ddpm`.
        conditioning_steps: the steps of denoising and inpainting in the figures of images. 0: none.
        source: where the paths begin, and how their ends are paired.
    """
    denoiser = Denoiser(process, network, shape, levels, "velocity", False, False, num_classes, label_dropout)
    stepper = samplers.euler(process) if stepper is None else stepper
    times = jnp.linspace(1.0, 0.0, 51) if times is None else times

    def encode(key: randomness.Keys, batch: Batch) -> tuple[Array, Array | None]:
        return dequantised(key, image_of(batch), levels), denoiser.unpack(batch)[1]

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        encode_key, time_key, noise_key, label_key, dropout_key = randomness.split(key, 5)
        x0, label = encode(encode_key, batch)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = sde.TRAIN_FROM + (1 - sde.TRAIN_FROM) * randomness.uniform(time_key, (len(x0),)) if given is None else given
        predict = denoiser.network_predict(params, denoiser.dropped(label_key, label), dropout_key)
        x1 = None if source.scores else source.paired(noise_key, x0, batch, label)
        return losses.flow_matching(process, predict, noise_key, x0, t, x1)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        encode_key, key = randomness.split(key, 2)
        x0, label = encode(encode_key, batch)
        parts = {"flow": -sde.log_prob(process, denoiser.predict(params, label), key, x0)}
        return parts | ({"units": jnp.full(len(x0), units_of(shape, levels))} if levels else {})

    def sample(params: Any, key: Array, num: int) -> Array:
        label = guidance.labels(num, num_classes) if num_classes else None
        return samplers.sample(stepper, denoiser.guided(params, label, guidance), key, times, (num, *shape))

    def begun(params: Any, key: Array, batch: Batch) -> tuple[predictions.Predict, Array, Array]:
        """The flow of a batch, the points where it begins, and the examples."""
        encode_key, source_key = randomness.split(key, 2)
        x0, label = encode(encode_key, batch)
        return denoiser.predict(params, label), source.draw(source_key, x0, batch), x0

    def carried(params: Any, key: Array, batch: Batch) -> Array:
        predict, x1, _ = begun(params, key, batch)
        return samplers.denoise(stepper, predict, key, x1, times)

    table = Table(lambda *given: flow_pictures.numbers(process, *begun(*given), in_pairs=source.in_pairs))
    figures = partial(_figures, denoiser, source, stepper, times, conditioning_steps, begun)
    likely = source.kind == "noise"  # the flow begins with a known density
    measures: list[Measure] = [Bound(terms)] if likely else [Reconstruction(carried)] if source.in_pairs else []
    return Model(
        denoiser.init,
        loss,
        bound_of(terms) if likely else None,
        sample if likely else None,
        lambda params: denoiser.kernels(params, guidance),
        of_times(times_of.continuous(sde.TRAIN_FROM) if time_sampler is None else time_sampler),
        Examples(classes=denoiser.classes),
        measures if likely and len(shape) == 3 else [*measures, table],
        Figures(samples=columns(num_classes if guidance.label < 0 else 0), own=figures),
    )


def _figures(
    denoiser: Denoiser,
    source: Source,
    stepper: samplers.Stepper,
    times: Array,
    conditioning_steps: int,
    begun: Callable[[Any, Array, Batch], tuple[predictions.Predict, Array, Array]],
    params: Any,
    key: Array,
    batch: Batch,
) -> dict[str, Figure]:
    """Paths of points of the plane, or of images from another set. For other images the reverse process."""
    process = denoiser.process
    if denoiser.shape == (2,):
        return flow_pictures.of_plane(process, *begun(params, key, batch))
    if source.kind != "noise":
        return flow_pictures.of_images(process, *begun(params, key, batch))
    if len(denoiser.shape) != 3 or denoiser.num_classes:
        return {}
    shown = times if len(times) > 2 else sde.times(process.schedule, 50)
    reverse = pictures.Reverse(process, denoiser.predict, stepper, shown, "posterior")
    steps = conditioning_steps if source.scores else 0
    return pictures.of_score(reverse, params, key, lambda key: begun(params, key, batch)[2], steps)


def make(config: Any) -> Model:
    """The Model of `config.{data, matching, net, sampling, evaluation}`, see configs/fm_cifar10.py and fm_toy.py.

    Raises:
        InputError: on an unknown choice, or a value out of range.
    """
    setting, sampling, shape = config.matching, config.sampling, tuple(config.data.shape)
    schedule = schedules.make(setting.schedule, setting, schedules.CONTINUOUS, "matching.schedule")
    process = processes.gaussian(schedule)
    if not 0 <= setting.label_dropout < 1:
        raise InputError(f"matching.label_dropout must be a probability below 1, not {setting.label_dropout}")
    return flow_matching(
        process,
        networks.of_data(config.net, shape),
        shape,
        config.data.levels,
        time_sampler=times_of.of_all_times("matching.time_sampling", setting.time_sampling, schedule, setting),
        stepper=samplers.make(sampling.sampler, process, sampling),
        # The solver chooses its own steps.
        times=jnp.array([1.0, 0.0]) if sampling.sampler == "probability_flow" else samplers.grid(schedule, sampling),
        num_classes=config.net.get("num_classes", 0),
        label_dropout=setting.label_dropout,
        guidance=guidance_of(config, "matching"),
        conditioning_steps=sampling.get("conditioning_steps", 0) if config.evaluation.get("conditioning") else 0,
        source=sources.of_config(config),
    )
