"""MeanFlow on images (Geng et al. 2025): one step from noise to data, learned in one run without a teacher.

The network gives u(x_t, r, t), the mean velocity of the flow from t to r on the straight path from data to noise
(`losses.mean_flow`). The log-odds of two times are normal. t is the later and r the earlier. In a share of the examples
r = t, and their loss is that of flow matching. At r = t the network is the velocity. So `Model.kernels` is that of a
flow, for every sampler.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import losses, predictions, processes, randomness, samplers, schedules
from diffjax import time_sampling as times_of
from diffjax.errors import InputError
from diffjax.memory import Memory
from diffjax.zoo.diffusion import networks
from diffjax.zoo.model import Batch, Model, image_of, scaled

PROCESS = processes.gaussian(schedules.straight())
# What the network's sinusoids see of t = 1. With the 1000 of diffusions du/dt is too rough to learn from: one step of
# an MLP of four clusters in the plane has the energy distance 0.058 from the data, with 100, 10 and 1 it has 0.013,
# 0.011 and 0.010.
POSITIONS = 10.0


class Times(NamedTuple):
    """The distribution of r and t: mean and deviation of their log-odds, and how often the two differ."""

    mean: float = -0.4
    std: float = 1.0
    apart: float = 0.25

    def draw(self, key: Array, num: int) -> dict[str, Array]:
        """r <= t for `num` examples."""
        *keys, which = jax.random.split(key, 3)
        one, other = (times_of.logit_normal(self.mean, self.std).sample((), key, num)[0] for key in keys)
        t, apart = jnp.maximum(one, other), jax.random.uniform(which, (num,)) < self.apart
        return {"r": jnp.where(apart, jnp.minimum(one, other), t), "t": t}


TIMES = Times()  # the paper's on ImageNet


def mean_flow(
    network: nn.Module,
    shape: tuple[int, int, int],
    levels: int,
    *,
    drawn: Times = TIMES,
    power: float = 1.0,
    stepper: samplers.Stepper | None = None,
    times: Array | None = None,
) -> Model:
    """MeanFlow of images (H, W, C) of `levels` levels.

    Args:
        network: (xt, position, label (None), dropout keys, span) -> (batch, H, W, C), see `networks`.
        drawn: times of training.
        power: of `losses.adaptive`.
        stepper, times: draw the samples. The default is one step of `samplers.mean_flow`. Another stepper gets the
            velocity u(x_t, t, t).
    """
    times = jnp.array([1.0, 0.0]) if times is None else times

    def init(key: Array) -> Any:
        zero = jnp.zeros(1)
        return network.init(key, jnp.zeros((1, *shape)), zero, None, None, zero)["params"]

    def average(params: Any, dropout: randomness.Keys | None = None) -> Callable[[Array, Array, Array], Array]:
        def u(x: Array, r: Array, t: Array) -> Array:
            said = network.apply({"params": params}, x, POSITIONS * t, None, dropout, POSITIONS * (t - r))
            return jnp.asarray(said)

        return u

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0 = scaled(image_of(batch), levels)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch if isinstance(batch, dict) and "t" in batch else _each(drawn, time_key, len(x0))
        error = losses.mean_flow(PROCESS, average(params, dropout_key), noise_key, x0, given["r"], given["t"])
        return losses.adaptive(math.prod(shape) * error, power)

    def kernels(params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        u = average(params)
        return PROCESS, predictions.velocity(lambda x, t: u(x, t, t))

    def sample(params: Any, key: Array, num: int) -> Array:
        way = samplers.mean_flow(PROCESS, average(params)) if stepper is None else stepper
        return samplers.sample(way, kernels(params)[1], key, times, (num, *shape))

    memory = Memory(
        init=lambda params: (),
        draw=lambda memory, key, num: drawn.draw(key, num),
        update=lambda memory, key, params, batch, seen: memory,
    )
    return Model(init, loss, sample=sample, kernels=kernels, memory=memory)


def make(config: Any) -> Model:
    """The Model of `config.{data, matching, net, sampling}`, see configs/meanflow_digits.py.

    Raises:
        InputError: on an unknown choice, or a value out of range.
    """
    setting, sampling = config.matching, config.sampling
    _check(config)
    own = sampling.sampler == "mean_flow"
    return mean_flow(
        networks.of_images(config.net, config.data.shape[-1]),
        tuple(config.data.shape),
        config.data.levels,
        drawn=Times(setting.time_mean, setting.time_std, setting.apart),
        power=setting.power,
        stepper=None if own else samplers.make(sampling.sampler, PROCESS, sampling),
        times=jnp.linspace(1.0, 0.0, sampling.steps + 1) if own else samplers.grid(PROCESS.schedule, sampling),
    )


def _each(drawn: Times, key: randomness.Keys, num: int) -> dict[str, Array]:
    """Times for a loss that is given none, by one key, or by a key for each example."""
    if not randomness.per_example(key):
        return drawn.draw(key, num)
    return jax.vmap(lambda key: {name: time[0] for name, time in drawn.draw(key, 1).items()})(key)


def _check(config: Any) -> None:
    shape, levels, setting = tuple(config.data.shape), config.data.levels, config.matching
    if len(shape) != 3 or levels < 2:
        raise InputError(
            f"mean_flow models images of at least 2 levels: data.shape=(H, W, C), not {shape} of data.levels={levels}"
        )
    if not 0 <= setting.apart <= 1:
        raise InputError(f"matching.apart={setting.apart} must be a probability, that r and t are two times")
    if not setting.time_std > 0:
        raise InputError(f"matching.time_std={setting.time_std} must be positive, the deviation of log-odds of times")
    if not 0 <= setting.power < math.inf:
        raise InputError(f"matching.power={setting.power} must be a finite number of at least 0, 0 for the plain loss")
    if type(config.sampling.steps) is not int or config.sampling.steps < 1:
        raise InputError(f"sampling.steps={config.sampling.steps!r} must be an integer of at least 1")
