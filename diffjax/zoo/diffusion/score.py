"""Score-based models: NCSN (Song & Ermon 2019, 2020), score-based SDEs (Song et al. 2021), EDM (Karras et al. 2022).

They model vectors and images. The network's output F gives the score of the noised data at time t or, preconditioned,
the data:

    s(x, t) = -F(x/√(alpha² + sigma²), t)/sigma                    (NCSNv2's third technique: unconditional in sigma)
    x̂_0(x, t) = c_skip x + c_out F(c_in x, c_noise)                (`predictions.preconditioned`)

Training is denoising score matching at `sde.levels` noise levels, or at all times if that is 0. Every sampler of the
library can use the network. There are two likelihoods: the bound, on a grid of times, and the probability flow. With
`learned_uncertainty` the loss is divided by its own size at t. The logarithm of this size is a learned sum of waves of
the noise level (`losses.learned_uncertainty`).

Levels 0 .. k-1 of the data become x = (2 (level + u) - 1)/(k - 1) - 1, with u uniform on [0, 1). So a density of x
bounds the probability of a level: log P ≥ E log p(x) + D log(2/(k-1)). For 8-bit data this offset is -6.994 bits a
dimension.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from diffjax import bounds, losses, predictions, processes, randomness, registry, samplers, schedules, sde
from diffjax import time_sampling as times_of
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.flow import Flow
from diffjax.evaluation.table import Table
from diffjax.memory import of_times
from diffjax.nets.layers import sinusoid
from diffjax.zoo.diffusion import networks, pictures, score_toy
from diffjax.zoo.figures import Figure, Figures
from diffjax.zoo.model import Batch, Model, bound_of, dequantised, image_of, units_of

EVENLY = times_of.continuous(sde.TRAIN_FROM)
WAVES = 32  # of the noise level, for the learned size of the loss
WEIGHTINGS = ("simple", "likelihood")  # beside those of `losses.WEIGHTS`


class Score(NamedTuple):
    """The network as a score, and the data as real numbers. The fields are arguments of `score_model`."""

    process: processes.Gaussian
    network: nn.Module
    shape: tuple[int, ...]
    levels: int
    sigma_data: float = 0.0
    learned_uncertainty: bool = False

    @property
    def kind(self) -> predictions.Kind:
        return "x0" if self.sigma_data else "score"

    @property
    def units(self) -> float:
        """The amount by which log p(x) exceeds log P(level), in nats."""
        return units_of(self.shape, self.levels)

    def init(self, key: Array) -> Any:
        network = self.network.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1))["params"]
        return {"network": network, "uncertainty": jnp.zeros(WAVES)} if self.learned_uncertainty else network

    def balanced(self, params: Any, loss: Array, t: Array) -> Array:
        """The loss (batch,) at t (batch,), divided by its learned size, which is 1 at the start."""
        if not self.learned_uncertainty:
            return loss
        waves = sinusoid(10.0 * jnp.clip(-0.125 * self.process.schedule.log_snr(t), -5.0, 5.0), WAVES)
        return losses.learned_uncertainty(loss, (waves * params["uncertainty"]).sum(1).astype(loss.dtype))

    def predict(self, params: Any, dropout: randomness.Keys | None = None) -> predictions.Predict:
        """-F(x/√(alpha² + sigma²), 999 t)/sigma as the score, or with `sigma_data` F preconditioned."""
        schedule = self.process.schedule
        params = params["network"] if self.learned_uncertainty else params
        rest = (None, dropout) if len(self.shape) == 3 else ()

        def network(x: Array, t: Array) -> Array:
            return jnp.asarray(self.network.apply({"params": params}, x, t, *rest))

        if self.sigma_data:
            return predictions.preconditioned(network, schedule, self.sigma_data)

        def score(xt: Array, t: Array) -> Array:
            alpha, sigma = (schedules.broadcast_to(a, xt) for a in (schedule.alpha(t), schedule.sigma(t)))
            inputs = xt / jnp.sqrt(alpha**2 + sigma**2)
            return -network(inputs, 999.0 * t) / sigma

        return predictions.score(score)

    def kernels(self, params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        return self.process, self.predict(params)

    def encode(self, key: randomness.Keys, batch: Batch) -> Array:
        """The examples as real numbers."""
        return dequantised(key, image_of(batch), self.levels)

    def log_prob(self, params: Any, key: Array, batch: Batch) -> Array:
        """The log-density by the probability flow, in nats. For levels it bounds their log-probability from below."""
        encode_key, key = jax.random.split(key)
        return sde.log_prob(self.process, self.predict(params), key, self.encode(encode_key, batch)) - self.units


def score_model(
    process: processes.Gaussian,
    network: nn.Module,
    shape: tuple[int, ...],
    *,
    levels: int = 0,
    num_levels: int = 0,
    weighting: str = "simple",
    sigma_data: float = 0.0,
    learned_uncertainty: bool = False,
    time_sampler: times_of.TimeSampler | None = None,
    stepper: samplers.Stepper | None = None,
    times: Array | None = None,
    bound_steps: int = 1000,
    num_terms: int | None = None,
    conditioning_steps: int = 0,
    toy: score_toy.Toy | None = None,
) -> Model:
    """A score model of vectors or images of `shape`.

    Args:
        process: one of a continuous schedule: `schedules.ve`, `vp`, `sub_vp`, `edm`.
        network: takes (x/√(alpha² + sigma²), 999 t), or (c_in x, c_noise). One of images also takes None and dropout
            keys.
        levels: the number of levels of the data. 0 for real numbers.
        num_levels: the number of noise levels of `ve` in training. 0: all times.
        weighting: of the squared error of the score: "simple" is sigma², "likelihood" is g². Or one of
            `losses.WEIGHTS`.
        sigma_data: the deviation of the data, for preconditioning (EDM). 0: the network gives the score.
        learned_uncertainty: whether the loss is divided by its learned size at t (Karras et al. 2024).
        time_sampler: draws times, if training is at all times. The default is `continuous`.
        stepper, times: draw the samples. The default is 1000 denoised steps of `reverse_diffusion`.
        bound_steps: the steps of the chain for the reported bound, if `num_levels` is 0.
        num_terms: the number of these steps to draw for each example. The default is all.
        conditioning_steps: the steps of denoising and inpainting in the figures of images. 0: none.
        toy: the mixture of the data, for data in the plane. It adds figures and a table.
    """
    schedule, images = process.schedule, len(shape) == 3
    score = Score(process, network, shape, levels, sigma_data, learned_uncertainty)
    stepper = samplers.denoised(process, samplers.reverse_diffusion(process)) if stepper is None else stepper
    times = sde.times(schedule, 1000) if times is None else times
    grid_times = _bound_times(schedule, num_levels or bound_steps)
    matching = _matching(score, weighting)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        encode_key, time_key, noise_key, dropout_key = randomness.split(key, 4)
        x0 = score.encode(encode_key, batch)
        t = _times(time_key, batch, len(x0), num_levels)
        return score.balanced(params, matching(score.predict(params, dropout_key), noise_key, x0, t), t)

    def terms(params: Any, key: randomness.Keys, batch: Batch) -> dict[str, Array]:
        encode_key, key = randomness.split(key, 2)
        x0 = score.encode(encode_key, batch)
        costs = bounds.diffusion(process, score.predict(params), key, x0, grid_times, "posterior", None, num_terms)
        parts = {"prior": costs.prior, "diffusion": costs.diffusion.sum(0), "reconstruction": costs.reconstruction}
        return parts | ({"units": jnp.full(len(x0), score.units)} if levels else {})

    def sample(params: Any, key: Array, num: int) -> Array:
        return samplers.sample(stepper, score.predict(params), key, times, (num, *shape))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        if toy is not None:
            return score_toy.figures(toy, process, score.predict(params), key)
        if not images:
            return {}
        shown = times if len(times) > 2 else sde.times(schedule, 10)
        reverse = pictures.Reverse(process, lambda params, _: score.predict(params), stepper, shown, "posterior")
        return pictures.of_score(reverse, params, key, lambda key: score.encode(key, batch), conditioning_steps)

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        return {} if toy is None else score_toy.table(toy, process, score.predict(params), key, batch["image"])

    return Model(
        score.init,
        loss,
        bound_of(terms),
        sample,
        score.kernels,
        of_times(times_of.low_discrepancy(num_levels) if num_levels else time_sampler or EVENLY),
        measures=(Bound(terms), Flow(score.log_prob), *([] if toy is None else [Table(table)])),
        figures=Figures(own=figures),
    )


def _matching(score: Score, weighting: str) -> Callable[[predictions.Predict, randomness.Keys, Array, Array], Array]:
    """The loss of a prediction as (predict, key, x0, t) -> (batch,), a mean over the event."""
    process = score.process
    if weighting in losses.WEIGHTS:
        weight = registry.build(losses.WEIGHTS[weighting], settings={"sigma_data": score.sigma_data})
        return lambda predict, key, x0, t: losses.weighted(process, predict, key, x0, t, weight, score.kind)
    # Under g² the loss bounds the likelihood (Song, Durkan et al. 2021).
    rate = None if weighting == "simple" else partial(sde.squared_diffusion, process.schedule)

    def loss(predict: predictions.Predict, key: randomness.Keys, x0: Array, t: Array) -> Array:
        return losses.weighted_score_matching(process, predict, key, x0, t, rate) / math.prod(score.shape)

    return loss


def _bound_times(schedule: schedules.Schedule, num: int) -> Array:
    """0, which is the data, and `num` times up to 1, equidistant in log-SNR.

    With equidistant times the first few steps of `vp` would have all the cost. The times of `ve` are its geometric
    levels, where the lowest is at the least time instead of 0.
    """
    fine = np.geomspace(sde.TRAIN_FROM, 1.0, 10_000)
    log_snr = np.asarray(schedule.log_snr(jnp.asarray(fine, float)), np.float64)
    inner = np.interp(-np.linspace(log_snr[0], log_snr[-1], num), -log_snr, fine)
    return jnp.asarray(np.concatenate([[0.0], inner]), float)


def _times(key: randomness.Keys, batch: Batch, num: int, num_levels: int) -> Array:
    """The times of the batch, or `num` drawn ones. With L levels i/L, i = 1 .. L, becomes (i - 1)/(L - 1)."""
    t = batch.get("t") if isinstance(batch, dict) else None
    if not num_levels:
        return sde.TRAIN_FROM + (1 - sde.TRAIN_FROM) * randomness.uniform(key, (num,)) if t is None else t
    t = times_of.uniform(num_levels).sample((), key, num)[0] if t is None else t
    return (jnp.round(t * num_levels) - 1) / (num_levels - 1)


def make(config: Any) -> Model:
    """The Model of `config.{data, sde, net, sampling, evaluation}`, see configs/ncsn_toy.py and configs/ncsn_digits.py.

    Raises:
        InputError: on an unknown choice, or a value out of range.
    """
    setting, sampling = config.sde, config.sampling
    _check(config)
    process = processes.gaussian(schedules.make(setting.name, setting, schedules.CONTINUOUS, "sde.name"))
    stepper = samplers.make(sampling.sampler, process, sampling, denoise=True)
    grids = {
        "annealed_langevin": jnp.linspace(1.0, 0.0, sampling.steps),  # the noise levels
        "probability_flow": jnp.array([1.0, 0.0]),  # its solver chooses its own steps
    }
    return score_model(
        process,
        networks.of_data(config.net, tuple(config.data.shape)),
        tuple(config.data.shape),
        levels=config.data.levels,
        num_levels=setting.levels,
        weighting=setting.weighting,
        sigma_data=setting.get("sigma_data", 0.0),
        learned_uncertainty=setting.get("learned_uncertainty", False),
        time_sampler=times_of.of_all_times(
            "sde.time_sampling", setting.get("time_sampling", "uniform"), process.schedule, setting
        ),
        stepper=stepper,
        times=grids.get(sampling.sampler, samplers.grid(process.schedule, sampling)),
        bound_steps=config.evaluation.bound_steps,
        num_terms=config.evaluation.num_terms or None,
        conditioning_steps=sampling.conditioning_steps if config.evaluation.get("conditioning") else 0,
        toy=score_toy.of_config(config) if config.data.name == "mixture" else None,
    )


def _check(config: Any) -> None:
    setting, sampling = config.sde, config.sampling
    registry.choose("sde.weighting", setting.weighting, (*WEIGHTINGS, *losses.WEIGHTS))
    sigma_data = setting.get("sigma_data", 0.0)
    if not 0 <= sigma_data < math.inf:
        raise InputError(f"sde.sigma_data must be the deviation of the data, or 0 for none, not {sigma_data}")
    if setting.weighting == "edm" and not sigma_data:
        raise InputError("sde.weighting='edm' needs sde.sigma_data, the deviation of the data")
    if setting.name == "straight" and not sigma_data:
        raise InputError("sde.name='straight' ends without signal, where a score says nothing: set sde.sigma_data")
    if setting.levels and (setting.name != "ve" or setting.levels < 2):
        raise InputError(
            f"sde.levels={setting.levels} must be 0, for all times, or at least 2, and those of sde.name='ve', not "
            f"{setting.name!r}"
        )
    least = 1 if sampling.get("spacing") else 2  # `sde.times` has two, annealed Langevin two levels
    if not isinstance(sampling.steps, int) or sampling.steps < least:
        raise InputError(f"sampling.steps must be an integer of at least {least}, not {sampling.steps!r}")
