"""Score-based models: NCSN (Song & Ermon 2019, 2020) and score-based SDEs (Song et al. 2021), on vectors and images.

The network's output F gives the score of the noised data at time t,

    s(x, t) = -F(x/√(alpha² + sigma²), t)/sigma                    (NCSNv2's third technique: unconditional in sigma)

trained by denoising score matching at `sde.levels` noise levels, or, with 0, at all times. Every sampler of the library
takes it, and its likelihood is had in two ways: by the bound, on a grid of times, and by the probability flow.

Levels 0 .. k-1 of the data become x = (2 (level + u) - 1)/(k - 1) - 1, u uniform on [0, 1), so that a density of x
bounds the probability of a level: log P ≥ E log p(x) + D log(2/(k-1)), the exact offset, -6.994 bits a dimension of
8-bit data.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax import bounds, losses, predictions, processes, randomness, samplers, schedules, sde, time_sampling
from diffjax.errors import InputError
from diffjax.memory import of_times
from diffjax.nets.vectors import TimeMLP
from diffjax.zoo import ddpm, pictures, score_toy
from diffjax.zoo.model import Batch, Figure, Film, Grid, Model, grid

PREDICTORS: dict[str, Callable[[processes.Gaussian], samplers.Stepper]] = {
    "ancestral": samplers.ancestral,
    "euler_maruyama": sde.euler_maruyama,
    "reverse_diffusion": sde.reverse_diffusion,
    "ddim": samplers.ddim,
    "heun": samplers.heun,
    "none": sde.still,
}
SAMPLERS = ("annealed_langevin", "predictor_corrector", "probability_flow")


def make(config: Any) -> Model:
    """The Model of `config.{data, sde, net, sampling, evaluation}`, see configs/ncsn_toy.py and configs/ncsn_digits.py.

    Raises:
        InputError: on an unknown choice, or values that cannot be.
    """
    setting = config.sde
    _check(config)
    schedule = _schedule(setting)
    process = processes.gaussian(schedule)
    shape = tuple(config.data.shape)
    net = _network(config)
    images = len(shape) == 3
    half = (config.data.levels - 1) / 2
    units = math.prod(shape) * math.log(half) if config.data.levels else 0.0
    stepper, times = _sampler(config, process)
    num_levels = setting.levels
    grid_times = _bound_times(schedule, num_levels or config.evaluation.bound_steps)
    time_sampler = time_sampling.low_discrepancy(num_levels) if num_levels else time_sampling.continuous(sde.TRAIN_FROM)

    def init(key: Array) -> Any:
        return net.init(key, jnp.zeros((1, *shape)), jnp.zeros(1))["params"]

    def predict_with(params: Any, dropout: randomness.Keys | None = None) -> predictions.Predict:
        def score(xt: Array, t: Array) -> Array:
            alpha, sigma = (schedules.broadcast_to(a, xt) for a in (schedule.alpha(t), schedule.sigma(t)))
            inputs = xt / jnp.sqrt(alpha**2 + sigma**2)
            rest = (None, dropout) if images else ()
            return -jnp.asarray(net.apply({"params": params}, inputs, 999.0 * t, *rest)) / sigma

        return predictions.score(score)

    def encode(key: randomness.Keys, batch: Batch) -> Array:
        x = jnp.asarray(batch["image"] if isinstance(batch, dict) else batch)
        if not config.data.levels:
            return x
        level = x.astype(float) if x.dtype == jnp.uint8 else (x + 1.0) * half
        return (level + randomness.uniform(key, x.shape, level.dtype) - 0.5) / half - 1.0

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        encode_key, time_key, noise_key, dropout_key = randomness.split(key, 4)
        x0 = encode(encode_key, batch)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = _own_times(time_key, len(x0), num_levels) if given is None else given
        if num_levels:
            t = (jnp.round(t * num_levels) - 1) / (num_levels - 1)  # from i/L, i = 1 .. L, to (i - 1)/(L - 1)
        predict = predict_with(params, dropout_key)
        # Under g² the loss bounds the likelihood (Song, Durkan et al. 2021).
        weight = None if setting.weighting == "simple" else partial(sde.squared_diffusion, schedule)
        return losses.weighted_score_matching(process, predict, noise_key, x0, t, weight) / math.prod(shape)

    def terms(params: Any, key: randomness.Keys, batch: Batch) -> dict[str, Array]:
        encode_key, key = randomness.split(key, 2)
        x0 = encode(encode_key, batch)
        num_terms = config.evaluation.num_terms or None
        costs = bounds.diffusion(process, predict_with(params), key, x0, grid_times, "posterior", None, num_terms)
        parts = {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}
        return parts | ({"units": jnp.full(len(x0), units)} if units else {})

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return -jnp.stack(list(terms(params, key, batch).values())).sum(0)

    def log_prob(params: Any, key: Array, batch: Batch) -> Array:
        encode_key, key = jax.random.split(key)
        x0 = encode(encode_key, batch)
        return sde.log_prob(process, predict_with(params), key, x0) - units

    def draw(params: Any, key: Array, num: int) -> Array:
        if config.sampling.sampler == "probability_flow":
            latents = process.prior((num, *shape)).sample(key)
            return sde.decode(process, predict_with(params), latents, denoise=True)
        return samplers.sample(stepper, predict_with(params), key, times, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        if not images:
            return score_toy.figures(config, process, predict_with(params), key)
        film_key, latent_key, key = jax.random.split(key, 3)

        @jax.jit
        def film(params: Any, key: Array) -> Array:
            return pictures.film(stepper, process, predict_with(params), key, times, (16, *shape))[0]

        x = film(params, film_key)
        every = max(1, len(x) // 10)
        # What noise levels up to 50 make of pixels is looked at on a scale of its own.
        scale = jnp.sqrt((x[every - 1 :: every, :8] ** 2).mean((1, 2, 3, 4), keepdims=True)).clip(1.0)
        rows = jnp.concatenate([x[every - 1 :: every, :8] / scale, x[-1:, :8]]).swapaxes(0, 1)
        drawn: dict[str, Figure] = {
            "reverse_process": Film(x),
            "denoising_sequence": Grid(rows.reshape(-1, *shape), rows.shape[1]),
            "latent_interpolation": latent_interpolation(params, encode(latent_key, batch)),
        }
        if config.evaluation.conditioning:
            some, rest = encode(key, batch)[:8], sde.times(schedule, config.sampling.conditioning_steps)
            # What leaves the data's range at high noise would be guided further out of it.
            predict = predictions.clip(predict_with(params), process)
            drawn |= pictures.conditioned(key, process, predict, some, rest, "posterior", lambda x: x)
        return drawn

    def latent_interpolation(params: Any, x0: Array, rows: int = 4) -> Grid:
        """Rows of: an image, it and another mixed in the latents of the probability flow, from one to the other."""
        rows = min(rows, len(x0) // 2)

        @jax.jit
        def mixed(params: Any, x0: Array) -> Array:
            latents = sde.encode(process, predict_with(params), x0)
            mix = jax.vmap(lambda a, b: sde.interpolate_latents(a, b, jnp.linspace(0.0, 1.0, 9)))
            between = mix(latents[0::2], latents[1::2]).reshape(-1, *shape)
            return sde.decode(process, predict_with(params), between, denoise=True).reshape(rows, -1, *shape)

        x0 = x0[: 2 * rows]
        images = jnp.concatenate([x0[0::2, None], mixed(params, x0), x0[1::2, None]], axis=1)
        return Grid(images.reshape(-1, *shape), images.shape[1])

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        return score_toy.table(config, process, predict_with(params), key, batch["image"])

    return Model(
        init,
        loss,
        bound,
        draw,
        terms,
        figures,
        of_times(time_sampler),
        grid if images else pictures.plane,
        kernels=lambda params: (process, predict_with(params)),
        table=table if config.data.name == "mixture" else None,
        log_prob=log_prob,
    )


def _bound_times(schedule: schedules.Schedule, num: int) -> Array:
    """0, which is the data, and `num` times to 1, equidistant in log-SNR: a step costs what the signal falls by in it.

    Equidistant times would have all the cost of `vp` in the first few. Those of `ve` are its geometric levels, with the
    lowest at the least time instead of 0.
    """
    fine = np.geomspace(sde.TRAIN_FROM, 1.0, 10_000)
    log_snr = np.asarray(schedule.log_snr(jnp.asarray(fine, float)), np.float64)
    inner = np.interp(-np.linspace(log_snr[0], log_snr[-1], num), -log_snr, fine)
    return jnp.asarray(np.concatenate([[0.0], inner]), float)


def _own_times(key: randomness.Keys, num: int, num_levels: int) -> Array:
    if num_levels:
        return time_sampling.uniform(num_levels).sample((), key, num)[0]
    return sde.TRAIN_FROM + (1 - sde.TRAIN_FROM) * randomness.uniform(key, (num,))


def _schedule(setting: Any) -> schedules.Schedule:
    match setting.name:
        case "ve":
            return schedules.ve(setting.sigma_min, setting.sigma_max)
        case "vp":
            return schedules.vp(setting.beta_min, setting.beta_max)
        case "sub_vp":
            return schedules.sub_vp(setting.beta_min, setting.beta_max)
    raise InputError(f"sde.name must be ve, vp or sub_vp, not {setting.name!r}")


def _sampler(config: Any, process: processes.Gaussian) -> tuple[samplers.Stepper, Array]:
    """The stepper and its times, descending from 1 to 0."""
    setting = config.sampling
    if setting.sampler == "annealed_langevin":
        stepper = sde.annealed_langevin(process, setting.step_size, setting.corrector_steps)
        return stepper, jnp.linspace(1.0, 0.0, setting.steps)
    times = sde.times(process.schedule, setting.steps)
    if setting.sampler in PREDICTORS:
        return sde.denoised(process, PREDICTORS[setting.sampler](process)), times
    # The flow has no steps: what its pictures are drawn by is predictor and corrector.
    predictor = sde.denoised(process, PREDICTORS[setting.predictor](process))
    return sde.predictor_corrector(process, predictor, setting.snr, setting.corrector_steps), times


def _network(config: Any) -> nn.Module:
    net, shape = config.net, tuple(config.data.shape)
    if net.name == "mlp":
        return TimeMLP(tuple(net.features), shape[-1])
    return ddpm.unet(net, shape[-1])


def _check(config: Any) -> None:
    setting, sampling = config.sde, config.sampling
    images = len(config.data.shape) == 3
    if config.net.name not in ("mlp", "unet") or (config.net.name == "unet") != images:
        right = "unet" if images else "mlp"
        raise InputError(
            f"net.name must be {right!r} for data of shape {tuple(config.data.shape)}: {config.net.name!r}"
        )
    if setting.weighting not in ("simple", "likelihood"):
        raise InputError(f"sde.weighting must be 'simple' or 'likelihood', not {setting.weighting!r}")
    if setting.levels and (setting.name != "ve" or setting.levels < 2):
        raise InputError(
            f"sde.levels={setting.levels} must be 0, for all times, or at least 2, and those of sde.name='ve', not "
            f"{setting.name!r}"
        )
    if sampling.sampler not in (*PREDICTORS, *SAMPLERS) or sampling.sampler == "none":
        choices = ", ".join([*SAMPLERS, *(name for name in PREDICTORS if name != "none")])
        raise InputError(f"sampling.sampler must be one of {choices}, not {sampling.sampler!r}")
    if sampling.predictor not in PREDICTORS:
        raise InputError(f"sampling.predictor must be one of {', '.join(PREDICTORS)}, not {sampling.predictor!r}")
    if not isinstance(sampling.steps, int) or sampling.steps < 2:
        raise InputError(f"sampling.steps must be an integer of at least 2, not {sampling.steps!r}")
