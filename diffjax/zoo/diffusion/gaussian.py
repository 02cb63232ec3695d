"""Gaussian diffusion with a learned schedule (Sohl-Dickstein et al. 2015, sections 2 and 3, appendices B.1 and D).

The reverse kernel is that of the paper's code. While z is zero it is the forward step in equilibrium:

    p(x_{t-1} | x_t) = N(√(1-β_t) x_t + √β_t z_μ,  sigmoid(logit β_t + z_Σ/√T)),   z_μ, z_Σ the network at (x_t, t).

Its mean is the posterior mean at the score -x_t + √((1-β_t)/β_t) z_μ. So it is a prediction of kind "score". β_1 and
the first step are fixed. The others are learned by ascent on K, with fixed noise:

    logit β_t = logit β⁰_t + Σ_j g_j(t) b_j,   t = 2 .. T, g_j bumps in time, b_j learned, 0 at first,

where β⁰ has a log_snr linear in t, from that of β_1 to -log T. For images every octave of noise then costs about the
same. With nearly equal rates, as in the paper at the start, the first step costs by far the most.

Data have zero mean and unit variance here. Pixels k become (k + u - mean)/std, with u uniform on ±½. So their density
bounds the probability of k, up to log std nats per dimension.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax import predictions, processes, randomness, samplers, schedules
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.nets.multiscale import MultiScale
from diffjax.nets.temporal import bumps
from diffjax.nets.vectors import RBF
from diffjax.zoo.diffusion import pictures
from diffjax.zoo.diffusion.learned_chain import DEFAULTS, Chain, Choices, check_steps, chosen, learned_chain
from diffjax.zoo.figures import Decode, Figure, Figures, Film
from diffjax.zoo.model import Batch, Model, image_of


def gaussian_diffusion(
    network: nn.Module,
    shape: tuple[int, ...],
    num_steps: int,
    *,
    levels: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
    first_beta: float = 1e-3,
    schedule_bumps: int = 10,
    choices: Choices = DEFAULTS,
) -> Model:
    """Gaussian diffusion of vectors or images of `shape`.

    Args:
        network: (xt, t) -> z_μ and z_Σ, as one array with the last axis doubled.
        levels: the number of levels of the data. 0 for real numbers, which must have zero mean and unit variance.
        mean, std: of the levels of the training examples. If they are not known they are NaN, and so are all costs.
        first_beta: β_1.
        schedule_bumps: J, the number of bumps that move the other β.
        choices: see `learned_chain`.
    """
    discrete = levels > 0
    # From [-1, 1], the range of floats of images, to levels.
    half = (levels - 1) / 2

    def init(key: Array) -> Any:
        weights = network.init(key, jnp.zeros((1, *shape)), jnp.ones(1))["params"]
        return {"network": weights, "schedule": jnp.zeros(schedule_bumps)}

    def kernels(params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        betas = learned_betas(params["schedule"], num_steps, first_beta)
        predict = _predict(network, params["network"], betas)
        return processes.gaussian(schedules.from_betas(betas)), predict

    def levels_of(batch: Batch) -> Array:
        image = image_of(batch)
        return image.astype(float) if image.dtype == jnp.uint8 else (image + 1.0) * half

    def encode(key: randomness.Keys, batch: Batch) -> Array:
        if not discrete:
            return jnp.asarray(image_of(batch))
        image = levels_of(batch)
        return (image + randomness.uniform(key, image.shape, image.dtype) - 0.5 - mean) / std

    def decode(x: Array) -> Array:
        return (x * std + mean) / half - 1.0 if discrete else x

    units = math.prod(shape) * math.log(std)

    def null(batch: Batch) -> Array:
        """The mean over the dequantisation of log N(x; 0, I): E u² = 1/12."""
        if not discrete:
            x0 = encode(jax.random.key(0), batch)
            return Normal(jnp.zeros(()), jnp.ones(())).log_prob(x0).reshape(len(x0), -1).sum(1)
        square = ((levels_of(batch) - mean) ** 2 + 1 / 12) / std**2
        log_prob = Normal(jnp.zeros(()), jnp.ones(())).log_prob(jnp.sqrt(square))
        return log_prob.reshape(len(square), -1).sum(1) - units

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        process, predict = kernels(params)
        return _figures(process, predict, key, encode(key, batch), decode)

    chain = Chain(init, kernels, encode, decode, null, "shifted", True, units)
    return learned_chain(chain, shape, num_steps, Figures(own=figures), choices)


def learned_betas(shifts: Array, num_steps: int, first_beta: float) -> Array:
    """β_1..β_T. The first is fixed. The others are those of a linear log_snr, with log-odds shifted by shifts (J,)."""
    log_snr = np.linspace(np.log1p(-first_beta) - np.log(first_beta), -np.log(num_steps), num_steps)
    rate = np.logaddexp(0.0, -log_snr)  # -log alpha_bar, without cancellation
    betas = -np.expm1(-np.diff(rate))
    log_odds = jnp.asarray(np.log(betas) - np.log1p(-betas), float)
    shift = bumps(jnp.linspace(0.0, 1.0, num_steps - 1), len(shifts)) @ shifts
    return jnp.concatenate([jnp.full(1, first_beta), jax.nn.sigmoid(log_odds + shift)])


def _predict(network: nn.Module, params: Any, betas: Array) -> predictions.Predict:
    """The score -x_t + √((1-β_t)/β_t) z_μ and the shift z_Σ/√T. Before the first step z is 0."""
    num_steps = len(betas)
    first = 1.5 / num_steps  # between the times of the first and of the second step

    def predict(xt: Array, t: Array) -> predictions.Prediction:
        z = jnp.asarray(network.apply({"params": params}, xt, t))
        z = jnp.where(schedules.broadcast_to(t < first, xt), 0.0, z)
        z_mean, z_variance = jnp.split(z, 2, axis=-1)
        beta = schedules.broadcast_to(betas[jnp.round(t * num_steps).astype(int) - 1], xt)
        score = jnp.sqrt((1 - beta) / beta) * z_mean - xt
        return predictions.Prediction(score, "score", z_variance / math.sqrt(num_steps))

    return predict


def _figures(
    process: processes.Gaussian, predict: predictions.Predict, key: Array, x0: Array, decode: Decode
) -> dict[str, Figure]:
    """For points of the plane their trajectories. For images a film, and denoising and inpainting. x0 are data."""
    shape, num_steps = x0.shape[1:], process.schedule.num_steps  # type: ignore[attr-defined]
    times = jnp.arange(num_steps + 1) / num_steps
    if len(shape) == 1:
        return {"trajectories": pictures.trajectories(key, process, predict, x0, times, "shifted")}
    film_key, key = jax.random.split(key)
    times, stepper = times[::-1], samplers.ancestral(process, "shifted")
    frames = jax.jit(lambda k: pictures.film(stepper, process, predict, k, times, (16, *shape))[0])(film_key)
    film = {"reverse_process": Film(decode(frames))}
    return film | pictures.conditioned(key, process, predict, x0[:8], times, "shifted", decode)


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/sohl_dickstein_swiss_roll.py.

    If data.mean and data.std are None, the model can be planned and its parameters made, but everything else is NaN.
    `data.mean_and_std` of the training examples finds them.

    Raises:
        InputError: on a network that does not fit the data, or a value that cannot be used.
    """
    setting, levels = config.diffusion, config.data.levels
    _check(config)
    mean, std = (config.data.mean, config.data.std) if levels else (0.0, 1.0)
    if mean is None:
        mean, std = math.nan, math.nan  # those of the training examples, which are not known here
    betas = learned_betas(jnp.zeros(setting.schedule_bumps), setting.num_steps, setting.first_beta)
    return gaussian_diffusion(
        _network(config),
        tuple(config.data.shape),
        setting.num_steps,
        levels=levels,
        mean=mean,
        std=std,
        first_beta=setting.first_beta,
        schedule_bumps=setting.schedule_bumps,
        choices=chosen(config, processes.gaussian(schedules.from_betas(betas)), "shifted"),
    )


def _check(config: Any) -> None:
    setting = config.diffusion
    check_steps(setting)
    if not 0 < setting.first_beta < 1:
        raise InputError(f"diffusion.first_beta must be in (0, 1), not {setting.first_beta}")
    if setting.schedule_bumps < 1:
        raise InputError(f"diffusion.schedule_bumps must be at least 1, not {setting.schedule_bumps}")
    if config.data.levels == 2:
        raise InputError("data.levels=2: bits want system='binomial_diffusion'")
    if not config.data.levels:
        return
    if "mean" not in config.data or "std" not in config.data:
        raise InputError(
            f"data.levels={config.data.levels}, but the configuration has no data.mean and data.std for its levels:"
            " take that of images, such as configs/sohl_dickstein_cifar10.py"
        )
    mean, std = config.data.mean, config.data.std
    if (mean, std) != (None, None) and not (
        isinstance(mean, int | float) and isinstance(std, int | float) and std > 0 and math.isfinite(mean + std)
    ):
        raise InputError(
            f"data.mean={mean} and data.std={std} must be those of the pixel levels, std above 0, or both None for"
            " those of the training examples"
        )


def _network(config: Any) -> nn.Module:
    net, shape = config.net, tuple(config.data.shape)
    match net.name, len(shape):
        case "rbf", 1:
            return RBF(net.units, 2 * shape[0], net.num_knots, net.local)
        case "multiscale", 3:
            return MultiScale(
                features=net.features,
                num_layers=net.num_layers,
                num_scales=net.num_scales,
                kernel_size=net.kernel_size,
                dense_features=net.dense_features,
                dense_layers=net.dense_layers,
                dense_out=net.dense_out,
                pixel_features=net.pixel_features,
                pixel_layers=net.pixel_layers,
                num_bumps=net.num_bumps,
                out_channels=2 * shape[-1],
            )
    raise InputError(
        f"net.name must be 'rbf' for vectors or 'multiscale' for images (H, W, C), not {net.name!r} for {shape}"
    )
