"""Reflow (Liu et al. 2023): flow matching on the pairs (x_1, x_0) of a trained flow, which makes the paths straighter.

The teacher is a run of `flow_matching` with the same network and section `matching`. Training begins with its
parameters, which the memory keeps. A step draws x_1 from the source, carries it to x_0 by the teacher, and descends the
loss of flow matching at this pair. Only the labels of a batch are used, or its sources where paths begin in examples
instead of noise. If a batch has no memory (a loss called by hand), the model is its own teacher.
"""

from typing import Any

import jax
from jax import Array

from diffjax import losses, processes, randomness, schedules, sde
from diffjax.errors import InputError
from diffjax.interpolants import reflow
from diffjax.mcmc.integrators import check_num_steps
from diffjax.memory import Memory
from diffjax.zoo.diffusion import flow_matching, networks, sources
from diffjax.zoo.diffusion.denoiser import Denoiser
from diffjax.zoo.diffusion.sources import Source
from diffjax.zoo.model import Batch, Model, dequantised, image_of


def rectified(model: Model, denoiser: Denoiser, source: Source, num_steps: int) -> Model:
    """The flow `model` as its own student.

    Args:
        model: of `flow_matching`.
        denoiser, source: its network, and where its paths begin.
        num_steps: of Heun's rule, by which the teacher carries x_1 to x_0; two evaluations each.
    """
    process, times = denoiser.process, model.memory
    assert times is not None  # that of a flow draws times

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        encode_key, time_key, noise_key, label_key, dropout_key = randomness.split(key, 5)
        x0, label = dequantised(encode_key, image_of(batch), denoiser.levels), denoiser.unpack(batch)[1]
        given = batch if isinstance(batch, dict) else {}
        teacher = given.get("memory", {"teacher": params})["teacher"]
        t = given.get("t")
        if t is None:
            t = sde.TRAIN_FROM + (1 - sde.TRAIN_FROM) * randomness.uniform(time_key, (len(x0),))
        x1 = source.draw(noise_key, x0, batch)
        end = jax.lax.stop_gradient(reflow.flow_ends(process, denoiser.predict(teacher, label), x1, num_steps))
        student = denoiser.network_predict(params, denoiser.dropped(label_key, label), dropout_key)
        return losses.flow_matching(process, student, noise_key, end, t, x1)

    memory = Memory(
        init=lambda params: {"teacher": params, "times": times.init(params)},
        draw=lambda memory, key, num: times.draw(memory["times"], key, num),
        update=lambda memory, key, params, batch, seen: (
            memory | {"times": times.update(memory["times"], key, params, batch, seen)}
        ),
        of_teacher=True,
    )
    return model._replace(loss=loss, memory=memory)


def make(config: Any) -> Model:
    """The Model of `config.distillation` and of what `flow_matching` needs, see configs/reflow_toy.py.

    Raises:
        InputError: as `flow_matching`; if the pairs were to be coupled anew, or distillation.num_steps is no positive
            integer.
    """
    setting = config.matching
    if setting.coupling not in ("paired", "independent"):
        raise InputError(f"matching.coupling={setting.coupling!r}: the teacher makes the pairs; set it to 'paired'")
    check_num_steps("distillation.num_steps", config.distillation.num_steps)
    shape = tuple(config.data.shape)
    schedule = schedules.make(setting.schedule, setting, schedules.CONTINUOUS, "matching.schedule")
    denoiser = Denoiser(
        process=processes.gaussian(schedule),
        network=networks.of_data(config.net, shape),
        shape=shape,
        levels=config.data.levels,
        kind="velocity",
        learned=False,
        clip=False,
        num_classes=config.net.get("num_classes", 0),
        label_dropout=setting.label_dropout,
    )
    model = flow_matching.make(config)
    return rectified(model, denoiser, sources.of_config(config), config.distillation.num_steps)
