"""Consistency models of images and vectors (Song et al. 2023; Song & Dhariwal 2024): samples in one step, or in few.

The network is that of a preconditioned score model (`score`, `predictions.preconditioned`). f is its step to t_min
(`losses.consistency_function`). It is trained alone, or on the flow of a teacher. The teacher is a run of `score` with
the same network and section `sde`. Training then begins with the teacher's parameters, and the memory keeps a copy of
them.

    memory   the step k, which determines the number N(k) of noise levels; the teacher's parameters; with
             `target_decay` a running mean of the student's parameters, for the target of its loss
    draws    neighbouring levels s and t, and the weight 1/(ς_t - ς_s), ς = sigma/alpha

If a batch has no memory, because the loss is called directly, it counts as one of the last stage, with the model as its
own teacher. There is no likelihood, because f does not estimate the mean of x_0.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffjax import losses, predictions, processes, randomness, samplers, schedules
from diffjax import time_sampling as times_of
from diffjax.errors import InputError
from diffjax.losses.consistency_times import Curriculum, Pairs
from diffjax.memory import Memory
from diffjax.sde.equations import sample_from
from diffjax.sde.flow import earliest
from diffjax.zoo.diffusion import networks
from diffjax.zoo.diffusion.score import Score
from diffjax.zoo.model import Batch, Model, image_of, scaled

EVENLY = times_of.continuous(0.0)  # quantiles in [0, 1]


def consistency(
    process: processes.Gaussian,
    network: nn.Module,
    shape: tuple[int, ...],
    levels: int,
    curriculum: Curriculum,
    *,
    sigma_data: float,
    t_min: float,
    time_mean: float = -1.1,
    time_std: float = 2.0,
    distil: bool = False,
    order: int = 2,
    target_decay: float = 0.0,
    clip: bool = True,
    stepper: samplers.Stepper | None = None,
    times: Array | None = None,
) -> Model:
    """A consistency model of vectors, or of images of `levels` levels.

    Args:
        network, sigma_data: as of `score_model`.
        curriculum: N(k), the number of intervals between noise levels at step k.
        t_min: where f is the identity.
        time_mean, time_std: of the log-normal distribution of noise levels in training.
        distil: whether training begins with the parameters of a teacher.
        order: of the teacher's step.
        target_decay: of the running mean for the target f⁻. If 0, the target is f itself.
        clip: whether samples, and estimates on the way, are clipped to [-1, 1].
        stepper, times: draw the samples. The default is one step of `samplers.consistency`.
    """
    model, schedule = Score(process, network, shape, levels, sigma_data), process.schedule
    stepper = samplers.consistency(process, t_min) if stepper is None else stepper
    times = jnp.array([1.0, 0.0]) if times is None else times

    def f(params: Any, dropout: randomness.Keys | None = None) -> predictions.Predict:
        return losses.consistency_function(process, model.predict(params, dropout), t_min)

    def pairs(u: Array, step: Any) -> Pairs:
        return losses.consistency_pairs(schedule, u, curriculum.intervals(step), t_min, mean=time_mean, std=time_std)

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0 = scaled(image_of(batch), levels)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch if isinstance(batch, dict) else {}
        memory = given.get("memory", {"teacher": params})
        if "t" in given:
            s, t = given["s"], given["t"]
        else:
            s, t, _ = pairs(randomness.uniform(time_key, (len(x0),)), curriculum.steps)
        target = f(memory.get("target", params), dropout_key)  # the same units drop out in both
        if not distil:
            return losses.consistency_training(process, f(params, dropout_key), noise_key, x0, s, t, target)
        teacher = model.predict(memory["teacher"])
        student = f(params, dropout_key)
        return losses.consistency_distillation(process, student, teacher, noise_key, x0, s, t, target, order)

    def remember(params: Any) -> dict[str, Any]:
        memory = {"step": jnp.zeros((), jnp.int32)}
        return memory | ({"teacher": params} if distil else {}) | ({"target": params} if target_decay else {})

    def draw(memory: Any, key: Array, num: int) -> dict[str, Array]:
        u, _ = EVENLY.sample((), key, num)
        return pairs(u, memory["step"])._asdict()

    def update(memory: Any, key: Array, params: Any, batch: Any, seen: Array) -> dict[str, Any]:
        new = memory | {"step": memory["step"] + 1}
        if target_decay:
            mean = jax.tree.map(lambda old, now: old + (1 - target_decay) * (now - old), memory["target"], params)
            new |= {"target": mean}
        return new

    def kernels(params: Any) -> tuple[processes.Gaussian, predictions.Predict]:
        return process, predictions.clip(f(params), process) if clip else f(params)

    def sample(params: Any, key: Array, num: int) -> Array:
        return samplers.sample(stepper, kernels(params)[1], key, times, (num, *shape))

    return Model(model.init, loss, sample=sample, kernels=kernels, memory=Memory(remember, draw, update, distil))


def sampling_times(schedule: schedules.Schedule, sampling: Any) -> Array:
    """The times of multistep sampling: `noise_levels` without the last one, next to t_min, where f does nothing."""
    steps, spacing, rho = sampling.steps, sampling.spacing or "karras", sampling.rho
    if spacing == "time":
        return samplers.noise_levels(schedule, steps, spacing)
    levels = samplers.noise_levels(schedule, steps + 1, spacing, rho)
    return jnp.append(levels[:-2], 0.0)


def make(config: Any) -> Model:
    """The Model of `config.{data, sde, net, consistency, distillation, sampling}`, see configs/cm_digits.py.

    Raises:
        InputError: on an unknown choice, or a value out of range.
    """
    setting, sampling, distillation = config.consistency, config.sampling, config.distillation
    _check(config)
    process = processes.gaussian(schedules.make(config.sde.name, config.sde, schedules.CONTINUOUS, "sde.name"))
    t_min = earliest(process.schedule, sample_from(process.schedule))
    multistep = sampling.sampler == "consistency"
    return consistency(
        process,
        networks.of_data(config.net, tuple(config.data.shape)),
        tuple(config.data.shape),
        config.data.levels,
        Curriculum(config.training.steps, setting.intervals[0], setting.intervals[1]),
        sigma_data=config.sde.sigma_data,
        t_min=t_min,
        time_mean=setting.time_mean,
        time_std=setting.time_std,
        distil=distillation.teacher != "",
        order=distillation.order,
        target_decay=distillation.target_decay,
        clip=setting.clip,
        stepper=samplers.make(sampling.sampler, process, {**sampling, "t_min": t_min}),
        times=(sampling_times if multistep else samplers.grid)(process.schedule, sampling),
    )


def _check(config: Any) -> None:
    setting, distillation = config.consistency, config.distillation
    ends = tuple(setting.intervals)
    if len(ends) != 2 or not all(type(end) is int for end in ends) or not 1 <= ends[0] <= ends[1]:
        raise InputError(f"consistency.intervals={ends} must be two ascending integers of at least 1, N at both ends")
    if not setting.time_std > 0:
        raise InputError(f"consistency.time_std={setting.time_std} must be positive, a deviation of log noise levels")
    if not config.sde.sigma_data > 0:
        raise InputError(f"sde.sigma_data={config.sde.sigma_data} must be positive, the deviation of the data")
    if distillation.order not in (1, 2):
        raise InputError(f"distillation.order={distillation.order!r} must be 1 or 2, that of the teacher's step")
    if not 0 <= distillation.target_decay < 1:
        raise InputError(f"distillation.target_decay={distillation.target_decay} must be at least 0 and below 1")
    if setting.clip and not config.data.levels:
        raise InputError("consistency.clip=True is of data in [-1, 1]: set it False for data.levels=0")
