"""Progressive distillation on images (Salimans & Ho 2022): each round halves the number of sampling steps.

The teacher is a run of `ddpm` with the same network, prediction and chain. Training begins with its parameters, and the
memory keeps them. In a round the student learns to do in N steps what the teacher does in 2N DDIM steps
(`losses.progressive`). Then the student becomes the teacher, and N is halved:

    N(k) = N_0 2^-⌊k/K'⌋,   K' = ⌊K/rounds⌋,   down to the last N; samples are DDIM's in as many steps

The paper anneals the learning rate in each round. Here it is that of the run. If a batch has no memory, because the
loss is called directly, it counts as one of the last round, with the model as its own teacher.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import losses, processes, randomness
from diffjax import time_sampling as times_of
from diffjax.errors import InputError
from diffjax.memory import Memory
from diffjax.zoo.diffusion import ddpm, networks
from diffjax.zoo.diffusion.denoiser import Denoiser
from diffjax.zoo.model import Batch, Model

EVENLY = times_of.continuous(0.0)  # quantiles in [0, 1]


class Rounds(NamedTuple):
    """N goes from `first` to `last`. It is halved after equal numbers of the `steps` training steps."""

    steps: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """K', training steps of a round."""
        return max(self.steps // (self._halvings + 1), 1)

    def num_steps(self, step: ArrayLike) -> Array:
        """N(k), of the student."""
        return self.first // 2 ** jnp.minimum(jnp.asarray(step) // self.length, self._halvings)

    def ends(self, step: ArrayLike) -> Array:
        """Whether a round ends, and another follows, where `step` training steps have been made."""
        step = jnp.asarray(step)
        return (step % self.length == 0) & (step // self.length <= self._halvings)

    def times(self, u: Array, step: ArrayLike) -> dict[str, Array]:
        """s, m and t of the student's step that each u in [0, 1) chooses, m in the middle."""
        num = self.num_steps(step)
        i = jnp.minimum(jnp.floor(u * num), num - 1)
        return {"s": i / num, "m": (i + 0.5) / num, "t": (i + 1) / num}

    @property
    def _halvings(self) -> int:
        return round(math.log2(self.first / self.last))


def progressive(model: Model, denoiser: Denoiser, rounds: Rounds) -> Model:
    """The diffusion `model` as its own student.

    Args:
        model: of `ddpm`. Its bound is no measure of a student, whose estimate of x_0 is no mean.
        denoiser: its network.
        rounds: how many steps the student has, and when.
    """

    def loss(params: Any, key: randomness.Keys, batch: Batch) -> Array:
        x0, label = denoiser.unpack(batch)
        time_key, noise_key, dropout_key = randomness.split(key, 3)
        given = batch if isinstance(batch, dict) else {}
        teacher = given.get("memory", {"teacher": params})["teacher"]
        if "t" not in given:
            given = rounds.times(randomness.uniform(time_key, (len(x0),)), rounds.steps)
        student = denoiser.network_predict(params, label, dropout_key)
        taught = denoiser.network_predict(teacher, label)
        times = given["s"], given["m"], given["t"]
        return losses.progressive(denoiser.process, student, taught, noise_key, x0, *times)

    def update(memory: Any, key: Array, params: Any, batch: Any, seen: Array) -> dict[str, Any]:
        step = memory["step"] + 1
        now = rounds.ends(step)
        return {
            "step": step,
            "teacher": jax.tree.map(lambda old, new: jnp.where(now, new, old), memory["teacher"], params),
        }

    memory = Memory(
        init=lambda params: {"step": jnp.zeros((), jnp.int32), "teacher": params},
        draw=lambda memory, key, num: rounds.times(EVENLY.sample((), key, num)[0], memory["step"]),
        update=update,
        of_teacher=True,
    )
    return model._replace(loss=loss, memory=memory, bound=None, measures=())


def make(config: Any) -> Model:
    """The Model of `config.distillation` and of what `ddpm` needs, see configs/progressive_digits.py.

    Raises:
        InputError: as `ddpm`; on rounds that cannot be, or a prediction that says nothing of x_0 where alpha is 0.
    """
    setting = config.diffusion
    model = ddpm.make(config)
    _check(config)
    network = networks.of_images(config.net, config.data.shape[-1])
    denoiser = Denoiser(
        process=processes.gaussian(ddpm.schedule_of(setting)),
        network=network,
        shape=tuple(config.data.shape),
        levels=config.data.levels,
        kind=setting.prediction,
        learned=False,
        clip=setting.clip,
        num_classes=config.net.num_classes,
    )
    first, last = config.distillation.num_steps
    return progressive(model, denoiser, Rounds(config.training.steps, first, last))


def _check(config: Any) -> None:
    setting, ends = config.diffusion, tuple(config.distillation.num_steps)
    if len(ends) != 2 or not all(type(end) is int and end >= 1 for end in ends) or ends[0] < ends[1]:
        raise InputError(f"distillation.num_steps={ends} must be two integers, the student's steps first and last")
    if ends[1] * 2 ** round(math.log2(ends[0] / ends[1])) != ends[0]:
        raise InputError(f"distillation.num_steps={ends} must be apart by a power of 2: steps are halved")
    if setting.num_steps % (2 * ends[0]):
        raise InputError(
            f"distillation.num_steps={ends}: the teacher's first {2 * ends[0]} steps must divide"
            f" diffusion.num_steps={setting.num_steps}"
        )
    if setting.prediction in ("eps", "score"):
        raise InputError(
            f"diffusion.prediction={setting.prediction!r} loses x_0 in few steps, where alpha is small: distil a"
            " teacher of 'v' or 'x0'"
        )
    if setting.variance == "learned":
        raise InputError("diffusion.variance='learned' is of no use in DDIM's steps: distil a teacher of 'forward'")
