"""Denoising diffusion: DDPM (Ho et al. 2020) and improved DDPM (Nichol & Dhariwal 2021) on images.

The U-Net gives one of eps, x0, v; the process, the bound and the samplers are those of the library, called with the
network as their `Predict`. Pixels with k levels 0 .. k-1 become 2 x/(k-1) - 1, and the bound is that of the levels
themselves: its last term is the probability of a level under the rounded Normal (Ho et al. 2020, eq. 13).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import bounds, losses, predictions, processes, randomness, samplers, schedules, sde, time_sampling
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.memory import of_times
from diffjax.nets.unet import UNet
from diffjax.zoo import pictures
from diffjax.zoo.model import Batch, Curves, Figure, Film, Grid, Model, labels

TIME_SAMPLERS = {
    "uniform": time_sampling.uniform,
    "low_discrepancy": time_sampling.low_discrepancy,
    "loss_aware": time_sampling.loss_aware,
}
LOSSES = ("simple", "min_snr", "vlb", "hybrid")
SAMPLERS = ("ancestral", "ddim", "heun", "dpmpp_2m")


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/cifar10.py for the fields.

    Raises:
        InputError: on an unknown choice, or a combination that cannot be, e.g. a hybrid loss without learned variance.
    """
    setting = config.diffusion
    schedule = _schedule(setting)
    process = processes.gaussian(schedule)
    learned = setting.variance == "learned"
    _check(config, learned)
    net = unet(config.net, config.data.shape[-1] * (2 if learned else 1))
    times = schedule.times
    decoder = partial(DiscretizedNormal, num_bins=config.data.levels)
    shape = tuple(config.data.shape)
    stepper = _stepper(config, process)

    def init(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, *shape)), jnp.zeros(1), _no_label(config))["params"]

    def raw_predict(params: Any, label: Array | None, dropout: Array | None = None) -> predictions.Predict:
        def fn(xt: Array, t: Array) -> Array:
            # The sinusoid wants DDPM's step index 0 .. 999, whatever the number of steps.
            position = 1000.0 * t - 1.0
            return jnp.asarray(net.apply({"params": params}, xt, position, label, dropout))

        return predictions.predictor(setting.prediction, fn, learned)

    def model_predict(params: Any, label: Array | None) -> predictions.Predict:
        """Of the model p whose bound is reported and from which samples are drawn."""
        predict = raw_predict(params, label)
        return predictions.clip(predict, process) if setting.clip else predict

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        x0, label = _unpack(config, batch)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = time_sampling.uniform(setting.num_steps).sample((), time_key, len(x0))[0] if given is None else given
        predict = raw_predict(params, label, dropout_key)
        s = times[jnp.round(t * setting.num_steps).astype(int) - 1]
        match setting.loss:
            case "simple":
                return losses.simple(process, predict, noise_key, x0, t, setting.prediction)
            case "min_snr":
                return losses.weighted(process, predict, noise_key, x0, t, losses.min_snr(), setting.prediction)
            case "hybrid":
                return losses.hybrid(process, predict, noise_key, x0, s, t, setting.num_steps, decoder)
        cost = losses.vlb(process, predict, noise_key, x0, s, t, setting.num_steps, setting.variance, decoder)
        return bounds.bits_per_dim(cost, shape)

    def diffusion_terms(params: Any, key: Array, batch: Batch, num_terms: int | None) -> bounds.DiffusionTerms:
        x0, label = _unpack(config, batch)
        predict = model_predict(params, label)
        return bounds.diffusion(process, predict, key, x0, times, setting.variance, decoder, num_terms)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        costs = diffusion_terms(params, key, batch, config.evaluation.num_terms or None)
        return {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return -jnp.stack(list(terms(params, key, batch).values())).sum(0)

    def log_prob(params: Any, key: Array, batch: Batch) -> Array:
        """The bound's prior and reconstruction, and the probability flow in place of all steps between."""
        x0, label = _unpack(config, batch)
        levels = jnp.round((x0 + 1.0) * (config.data.levels - 1) / 2).astype(int)
        predict, variance = model_predict(params, label), setting.variance
        return sde.discrete_log_prob(process, predict, key, levels, config.data.levels, "forward", variance)

    def sample(params: Any, key: Array, num: int) -> Array:
        label_key, key = jax.random.split(key)
        label = jax.random.randint(label_key, (num,), 0, config.net.num_classes) if config.net.num_classes else None
        grid = samplers.spaced(times, config.sampling.steps)
        return samplers.sample(stepper, model_predict(params, label), key, grid, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        """The reverse process and its estimates of x_0, an interpolation, and the rate-distortion curve."""
        images, label = _unpack(config, batch)
        film_key, mix_key, curve_key = jax.random.split(key, 3)
        some = None if label is None else label[:16]
        times_down = samplers.spaced(times, config.sampling.steps)

        def film(params: Any, key: Array) -> tuple[Array, Array]:
            predict, num = model_predict(params, some), 16 if some is None else len(some)
            return pictures.film(stepper, process, predict, key, times_down, (num, *shape))

        x, x0 = jax.jit(film)(params, film_key)
        mixes = jax.jit(interpolation)(params, mix_key, images, label)
        costs = jax.jit(diffusion_terms, static_argnums=3)(params, curve_key, batch, None)
        rate, distortion = bounds.rate_distortion(costs, shape)
        drawn: dict[str, Figure] = {}
        if config.evaluation.conditioning:
            predict = model_predict(params, None if label is None else label[:8])
            variance = setting.variance
            drawn = pictures.conditioned(mix_key, process, predict, images[:8], times_down, variance, lambda x: x)
        every = max(1, len(x0) // 10)
        progress = x0[every - 1 :: every, :8].swapaxes(0, 1)
        return drawn | {
            "reverse_process": Film(x),
            "progressive_generation": Grid(progress.reshape(-1, *shape), progress.shape[1]),
            "interpolation": Grid(mixes.reshape(-1, *shape), mixes.shape[1]),
            "rate_distortion": Curves(
                {"rate and distortion": (rate, 127.5 * distortion)}, "rate (bits/dim)", "RMSE (pixels in [0, 255])"
            ),
        }

    def interpolation(params: Any, key: Array, images: Array, label: Array | None, rows: int = 4) -> Array:
        """Rows of: an image, seven mixtures of it and another at half the chain (DDPM's t = 500), the other image."""
        grid = samplers.spaced(times, config.sampling.steps)
        grid = grid[(config.sampling.steps - 1) // 2 :]
        weights = jnp.linspace(0.1, 0.9, 7)

        def row(item: tuple[Array, Array]) -> Array:
            i, (a, b) = item[0], images[item[1]]
            # One class for the whole row, that of its first image: a mixture of classes is not a class.
            predict = model_predict(params, None if label is None else label[item[1][:1]])
            mixed = samplers.interpolate(process, stepper, predict, jax.random.fold_in(key, i), a, b, weights, grid)
            return jnp.concatenate([a[None], mixed, b[None]])

        rows = min(rows, len(images) // 2)
        return jax.lax.map(row, (jnp.arange(rows), jnp.arange(2 * rows).reshape(rows, 2)))

    sampler = _choose("diffusion.time_sampling", setting.time_sampling, TIME_SAMPLERS)(setting.num_steps)

    def kernels(params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        if config.net.num_classes:
            raise InputError("net.num_classes is set: a network that knows classes alone has no unconditional Predict")
        return process, model_predict(params, None)

    return Model(
        init,
        loss,
        bound,
        sample,
        terms,
        figures,
        of_times(sampler),
        kernels=kernels,
        log_prob=log_prob,
        classes=("net.num_classes", config.net.num_classes) if config.net.num_classes else None,
    )


def _check(config: Any, learned: bool) -> None:
    setting = config.diffusion
    if len(config.data.shape) != 3 or config.data.levels < 2:
        shape, levels = tuple(config.data.shape), config.data.levels
        raise InputError(
            f"ddpm models images of at least 2 levels: data.shape=(H, W, C), not {shape} of {levels} levels"
        )
    num_classes = config.net.num_classes
    if not isinstance(num_classes, int) or num_classes < 0:
        raise InputError(f"net.num_classes must be an integer of at least 0, 0 for no classes, not {num_classes!r}")
    if setting.loss not in LOSSES:
        raise InputError(f"diffusion.loss must be one of {', '.join(LOSSES)}, not {setting.loss!r}")
    if setting.loss == "hybrid" and (not learned or setting.prediction != "eps"):
        raise InputError("diffusion.loss='hybrid' needs diffusion.variance='learned' and diffusion.prediction='eps'")
    if learned and setting.loss not in ("hybrid", "vlb"):
        raise InputError(f"diffusion.variance='learned' is not taught by diffusion.loss={setting.loss!r}: use 'hybrid'")
    if setting.prediction not in predictions.KINDS:
        raise InputError(f"diffusion.prediction must be one of {', '.join(predictions.KINDS)}: {setting.prediction!r}")
    if setting.variance not in ("posterior", "forward", "learned"):
        raise InputError(f"diffusion.variance must be 'posterior', 'forward' or 'learned', not {setting.variance!r}")
    if setting.num_steps == 1 and setting.variance != "forward":
        raise InputError(f"diffusion.num_steps=1 has no diffusion.variance={setting.variance!r}: use 'forward'")
    if not 1 <= config.sampling.steps <= setting.num_steps:
        limit = f"diffusion.num_steps={setting.num_steps}"
        raise InputError(f"sampling.steps must be from 1 to {limit}, not {config.sampling.steps}")


def _schedule(setting: Any) -> schedules.Discrete:
    match setting.schedule:
        case "linear":
            ends = tuple(setting.betas)
            if len(ends) != 2 or not all(isinstance(beta, float | int) for beta in ends):
                raise InputError(f"diffusion.betas = {ends} must be two numbers, the first and the last beta")
            return schedules.linear(setting.num_steps, *ends)
        case "cosine":
            return schedules.cosine(setting.num_steps)
        case "sigmoid":
            return schedules.sigmoid(setting.num_steps)
    raise InputError(f"diffusion.schedule must be linear, cosine or sigmoid, not {setting.schedule!r}")


def unet(net: Any, out_channels: int) -> UNet:
    """The U-Net of `config.net`."""
    return UNet(
        channels=net.channels,
        multipliers=tuple(net.multipliers),
        num_blocks=net.num_blocks,
        attention=tuple(net.attention),
        out_channels=out_channels,
        dropout=net.dropout,
        num_classes=net.get("num_classes") or None,
        dtype=jnp.dtype(net.dtype),
        remat=net.remat,
    )


def _stepper(config: Any, process: processes.Gaussian) -> samplers.Stepper:
    match config.sampling.sampler:
        case "ancestral":
            return samplers.ancestral(process, config.diffusion.variance)
        case "ddim":
            return samplers.ddim(process, config.sampling.eta)
        case "heun":
            return samplers.heun(process)
        case "dpmpp_2m":
            return samplers.dpmpp_2m(process)
    raise InputError(f"sampling.sampler must be one of {', '.join(SAMPLERS)}, not {config.sampling.sampler!r}")


def _unpack(config: Any, batch: Batch) -> tuple[Array, Array | None]:
    """Images as floats in [-1, 1], and labels if the network is conditioned on them: it is told of no class where none
    is known."""
    image = batch["image"] if isinstance(batch, dict) else batch
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) * (2.0 / (config.data.levels - 1)) - 1.0
    if not config.net.num_classes:
        return image, None
    label = labels(batch, ("net.num_classes", config.net.num_classes))
    return image, jnp.where(label < 0, config.net.num_classes, label)


def _no_label(config: Any) -> Array | None:
    return jnp.zeros(1, int) if config.net.num_classes else None


def _choose(field: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise InputError(f"{field} must be one of {', '.join(choices)}, not {name!r}")
    return choices[name]
