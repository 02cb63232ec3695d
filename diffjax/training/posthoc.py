"""Averages of any width, made from the averages in the checkpoints of a run: see `diffjax.training.averages`."""

from typing import Any, NamedTuple

import jax

from diffjax.errors import InputError
from diffjax.training.averages import exponent, posthoc_coefficients
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.state import TrainState

FARTHEST = 0.5  # the largest error allowed: distance to the wanted profile, as a share of its length


class PostHoc(NamedTuple):
    """An average of parameters, and how it was made."""

    average: Any
    steps: list[int]  # of the checkpoints
    error: float  # of its profile, as a share of the profile's length


def post_hoc(
    checkpointer: Checkpointer, wanted: TrainState, widths: tuple[float, ...], width: float, step: int
) -> PostHoc:
    """The average of `width` after `step` steps, from the averages of `widths` in all checkpoints up to that step.

    wanted: the shapes and shardings of a state, see `loop.abstract_state`. One state is in memory at a time.
    Raises `InputError` before any state is read, if there are no averages, or too few for a good approximation.
    """
    name = f"evaluation.ema_width = {width!r}"
    if not widths:
        raise InputError(f"{name} needs a run with training.ema_widths, such as (0.05, 0.1), and this one has none")
    steps = [there for there in checkpointer.steps() if 0 < there <= step]
    if not steps:
        raise InputError(f"{name} needs a checkpoint of a step after 0, and of those up to {step} there is none")
    stored = [(there, exponent(known)) for there in steps for known in widths]
    times, gammas = zip(*stored, strict=True)
    coefficients, error = posthoc_coefficients(times, gammas, step, exponent(width, "evaluation.ema_width"))
    if error > FARTHEST:
        raise InputError(
            f"{name} cannot be had from training.ema_widths = {widths!r} in {len(steps)} checkpoint(s): the profile"
            f" would be {error:.0%} off; take a width nearer to those, or keep more checkpoints, training.keep_every"
        )
    total = None
    for there, parts in zip(steps, coefficients.reshape(len(steps), len(widths)), strict=True):
        averages = checkpointer.restore(wanted, there)[0].averages
        for average, part in zip(averages, map(float, parts), strict=True):
            scaled = jax.tree.map(lambda x: part * x, average)  # noqa: B023
            total = scaled if total is None else jax.tree.map(jax.numpy.add, total, scaled)
    return PostHoc(total, steps, error)
