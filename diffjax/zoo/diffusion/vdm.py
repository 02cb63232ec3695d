"""Variational diffusion (Kingma et al. 2021) of images: the bound of continuous time, and a learned noise schedule.

The network F gets the scaled gamma = -log SNR instead of the time:

    ê(z, gamma) = z + F([z, waves of z], 999 (gamma - g_0)/(g_1 - g_0)),   g_0 and g_1 the initial ends of gamma

Training descends the bound, in bits/dim. The network and the ends of the schedule descend its mean, the interior of the
schedule its variance (`diffjax.learned_schedule`). Levels are not dequantised: the bound is on their log-probability.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import bounds, continuous_bound, learned_schedule, predictions, processes, randomness, samplers, sde
from diffjax import time_sampling as times_of
from diffjax.distributions import DiscretizedNormal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.learned_schedule import Learned
from diffjax.memory import of_times
from diffjax.nets.fourier import FourierFeatures
from diffjax.zoo.diffusion import networks, pictures
from diffjax.zoo.figures import Curves, Figure, Figures
from diffjax.zoo.model import Batch, Model, bound_of, image_of, scaled

MakeStepper = Callable[[processes.Gaussian], samplers.Stepper]


class Denoiser(NamedTuple):
    """The network, the schedule and its process. The fields are arguments of `vdm`."""

    network: nn.Module
    shape: tuple[int, ...]
    levels: int
    ends: tuple[float, float]
    learn_ends: bool
    units: int
    clip: bool
    num_terms: int

    def init(self, key: Array) -> Any:
        network = self.network.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1))["params"]
        params = {"network": network, "interior": learned_schedule.interior(self.units)}
        ends = {name: jnp.asarray(end, float) for name, end in self._given.items()}
        return params | ({"ends": ends} if self.learn_ends else {})

    def schedule(self, params: Any) -> Learned:
        return Learned(**params.get("ends", self._given), interior=params["interior"])

    def predict_eps(self, params: Any, dropout: randomness.Keys | None = None) -> Callable[[Array, Array], Array]:
        """(z, gamma) -> ê, the network's prediction, as it is trained."""
        low, high = self.ends

        def predict(z: Array, gamma: Array) -> Array:
            position = 999.0 * (gamma - low) / (high - low)
            return z + jnp.asarray(self.network.apply({"params": params["network"]}, z, position, None, dropout))

        return predict

    def kernels(self, params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        """Process and Predict of the model p, for the reported bound and for samples."""
        schedule, said = self.schedule(params), self.predict_eps(params)
        process = processes.gaussian(schedule)
        predict = predictions.eps(lambda z, t: said(z, schedule.gamma(t)))
        return process, predictions.clip(predict, process) if self.clip else predict

    def unpack(self, batch: Batch) -> Array:
        """Images in [-1, 1]."""
        return scaled(image_of(batch), self.levels)

    def loss(self, params: Any, key: randomness.Keys, batch: Batch) -> Array:
        """The bound's cost at one time of each example, in bits/dim."""
        x0, schedule = self.unpack(batch), self.schedule(params)
        time_key, noise_key, end_key, dropout_key = randomness.split(key, 4)
        given = batch.get("t") if isinstance(batch, dict) else None
        t = randomness.uniform(time_key, (len(x0),)) if given is None else given
        eps = randomness.normal(noise_key, x0.shape, x0.dtype)
        predict_eps = self.predict_eps(params, dropout_key)

        def diffusion(gamma: Array, rate: Array) -> Array:
            return bounds.bits_per_dim(continuous_bound.diffusion_cost(predict_eps, x0, eps, gamma, rate), self.shape)

        ends = bounds.bits_per_dim(sum(self._ends_cost(schedule, end_key, x0)), self.shape)
        return learned_schedule.least_variance(schedule, t, diffusion) + ends

    def terms(self, params: Any, key: randomness.Keys, batch: Batch) -> dict[str, Array]:
        """The bound's costs in nats. The integral over time uses `num_terms` strata."""
        x0, (process, predict) = self.unpack(batch), self.kernels(params)
        schedule = self.schedule(params)
        key, end_key = randomness.split(key, 2)

        def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            stratum, keys = item
            time_key, noise_key = randomness.split(keys, 2)
            t = (stratum + randomness.uniform(time_key, (len(x0),), x0.dtype)) / self.num_terms
            eps = randomness.normal(noise_key, x0.shape, x0.dtype)

            def predict_eps(z: Array, _: Array) -> Array:
                return predictions.convert(predict(z, t), "eps", process, z, t)

            return total + continuous_bound.diffusion_cost(predict_eps, x0, eps, *schedule.rate(t)), None

        strata = jnp.arange(self.num_terms, dtype=x0.dtype), jnp.stack(randomness.split(key, self.num_terms))
        total, _ = jax.lax.scan(add, jnp.zeros(len(x0), x0.dtype), strata)
        prior, reconstruction = self._ends_cost(schedule, end_key, x0)
        return {"prior": prior, "diffusion": total / self.num_terms, "reconstruction": reconstruction}

    def log_prob(self, params: Any, key: Array, batch: Batch) -> Array:
        """log p(z) + log P(x | z) - log q(z | x) at one z near t = 0. log p(z) is by the probability flow."""
        x0, (process, predict) = self.unpack(batch), self.kernels(params)
        noise_key, probe_key = jax.random.split(key)
        t = jnp.full(len(x0), sde.LIKELIHOOD_FROM, x0.dtype)
        noise = process.marginal(x0, t)
        z = noise.sample(noise_key)
        cost = continuous_bound.reconstruction_cost(x0, z, self.schedule(params).gamma(t), self.levels)
        return sde.log_prob(process, predict, probe_key, z) - cost - noise.log_prob(z).reshape(len(x0), -1).sum(1)

    @property
    def _given(self) -> dict[str, float]:
        return dict(zip(("gamma_0", "gamma_1"), self.ends, strict=True))

    def _ends_cost(self, schedule: Learned, key: randomness.Keys, x0: Array) -> tuple[Array, Array]:
        """Prior and reconstruction in nats: the costs of the two ends of the schedule."""
        z0 = continuous_bound.noised(x0, randomness.normal(key, x0.shape, x0.dtype), schedule.gamma_0)
        return (
            continuous_bound.prior_cost(x0, schedule.gamma_1),
            continuous_bound.reconstruction_cost(x0, z0, schedule.gamma_0, self.levels),
        )


def vdm(
    network: nn.Module,
    shape: tuple[int, ...],
    levels: int,
    *,
    ends: tuple[float, float] = (-13.3, 5.0),
    learn_ends: bool = True,
    units: int = 1024,
    clip: bool = True,
    make_stepper: MakeStepper = samplers.ancestral,
    times: Array | None = None,
    num_terms: int = 100,
    conditioning: bool = False,
) -> Model:
    """Variational diffusion of images (H, W, C) of `levels` levels.

    Args:
        network: (z, position, label (None), dropout keys) -> (batch, H, W, C), see `nets.unet` and `nets.fourier`.
        ends: the initial gamma_0 and gamma_1.
        learn_ends: whether the ends are learned, too.
        units: the width of the schedule's monotone network.
        clip: whether the estimate of x_0 is clipped to [-1, 1] in samples and in the bound. It is not in training.
        make_stepper: from the process of the learned schedule to the stepper of samples.
        times: of the sampler, descending from 1 to 0. The default is 250 equal steps.
        num_terms: the number of times for the bound's integral for each example, one in each of as many strata.
        conditioning: whether the figures show denoising and inpainting.
    """
    denoiser = Denoiser(network, shape, levels, ends, learn_ends, units, clip, num_terms)
    times = jnp.linspace(1.0, 0.0, 251) if times is None else times

    def sample(params: Any, key: Array, num: int) -> Array:
        process, predict = denoiser.kernels(params)
        return samplers.sample(make_stepper(process), predict, key, times, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        process, predict = denoiser.kernels(params)
        shown = times if len(times) > 2 else jnp.linspace(1.0, 0.0, 101)
        reverse = pictures.Reverse(process, lambda *_: predict, make_stepper(process), shown, "posterior")
        x0, decoder = denoiser.unpack(batch), partial(DiscretizedNormal, num_bins=levels)
        t = jnp.linspace(0.0, 1.0, 201)
        drawn = pictures.of_chain(reverse, params, key, x0, None, shown[::-1], decoder, conditioning)
        return drawn | {"schedule": Curves({"learned": (t, process.schedule.log_snr(t))}, "t", "log SNR")}

    return Model(
        denoiser.init,
        denoiser.loss,
        bound_of(denoiser.terms),
        sample,
        denoiser.kernels,
        of_times(times_of.continuous(0.0)),
        measures=(Bound(denoiser.terms), Flow(denoiser.log_prob)),
        figures=Figures(own=figures),
    )


def make(config: Any) -> Model:
    """The Model of `config.{data, diffusion, net, sampling, evaluation}`, see configs/vdm_cifar10.py for the fields.

    Raises:
        InputError: on an unknown choice, or a value out of range.
    """
    _check(config)
    setting, sampling = config.diffusion, config.sampling
    channels, levels = config.data.shape[-1], config.data.levels
    # A sampler's setting that is out of range raises an error here, and not only when samples are drawn.
    gamma_0, gamma_1 = setting.ends
    example = learned_schedule.learned(gamma_0, gamma_1, learned_schedule.interior(setting.units))
    make_stepper = partial(samplers.make, sampling.sampler, settings=sampling, denoise=True)
    make_stepper(processes.gaussian(example))
    network: nn.Module = networks.of_images(config.net, channels)
    if config.net.fourier:
        network = FourierFeatures(network, tuple((levels - 1) / period for period in config.net.fourier))
    # The solver of the flow chooses its own steps.
    steps = 1 if sampling.sampler == "probability_flow" else sampling.steps
    return vdm(
        network,
        tuple(config.data.shape),
        levels,
        ends=(gamma_0, gamma_1),
        learn_ends=setting.learn_ends,
        units=setting.units,
        clip=setting.clip,
        make_stepper=make_stepper,
        times=jnp.linspace(1.0, 0.0, steps + 1),
        num_terms=config.evaluation.num_terms,
        conditioning=config.evaluation.conditioning,
    )


def _check(config: Any) -> None:
    shape, levels, ends = tuple(config.data.shape), config.data.levels, tuple(config.diffusion.ends)
    if len(shape) != 3 or levels < 2:
        raise InputError(
            f"vdm models images of at least 2 levels: data.shape=(H, W, C), not {shape} of data.levels={levels}"
        )
    if (
        len(ends) != 2
        or not all(isinstance(end, float | int) for end in ends)
        or not -math.inf < ends[0] < ends[1] < math.inf
    ):
        raise InputError(f"diffusion.ends={ends} must be two numbers, -log SNR at t = 0 and a larger one at t = 1")
    if config.sampling.get("spacing"):
        raise InputError(
            f"sampling.spacing={config.sampling.spacing!r} is of fixed schedules, here it is learned: leave it empty"
        )
    periods = tuple(config.net.fourier)
    if not all(isinstance(period, float | int) and period > 0 for period in periods):
        raise InputError(f"net.fourier={periods} must be positive numbers of levels, the lengths of waves; () for none")
    for field, value, least in (
        ("diffusion.units", config.diffusion.units, 1),
        ("sampling.steps", config.sampling.steps, 2),
        ("evaluation.num_terms", config.evaluation.num_terms, 1),  # an integral has no whole sum
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{field}={value!r} must be an integer of at least {least}")
