"""The settings of a training run: the section `training` of a configuration, checked once at the start."""

import difflib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from diffjax import registry
from diffjax.errors import InputError
from diffjax.mesh import DATA_PARALLEL, Axes, check_axes
from diffjax.randomness import check_seed
from diffjax.training import averages


class Part(NamedTuple):
    """How Adam moves one part of the parameters."""

    learning_rate: float  # 0 = the part stays as it is
    warmup: int
    b1: float = 0.9
    b2: float = 0.999


class TrainingConfig(NamedTuple):
    """Counts are in optimiser steps unless said otherwise. The defaults are DDPM's for CIFAR-10 (Ho et al. 2020, B)."""

    steps: int = 800_000
    batch_size: int = 128  # examples a step, over all devices and processes
    learning_rate: float = 2e-4  # Adam's, after the warm-up
    warmup: int = 5_000  # steps of linear growth of the learning rate; 0 = none
    decay: str = "constant"  # the learning rate's schedule after the warm-up: constant | cosine | inverse_sqrt
    weight_decay: float = 0.0  # AdamW's; 0 = Adam
    grad_clip: float = 1.0  # largest global norm of the gradient; 0 = off
    ema_decay: float = 0.9999  # of the running mean (EMA) of the parameters; 0 = the EMA equals the parameters
    ema_widths: tuple[float, ...] = ()  # widths of further, power-function averages, see training.averages
    flip: bool = False  # mirror each image left-right with probability 1/2
    seed: int = 0  # at least 0 and below 2^32
    log_every: int = 100
    eval_every: int = 10_000  # 0 = only at the end
    save_every: int = 5_000  # 0 = only at the end
    keep_every: int = 100_000  # these checkpoints are never deleted, nor are the last two; 0 = only the last two
    accumulate: int = 1  # divide a batch into so many parts, process them in turn, and average their gradients
    on_bad_step: str = "stop"  # or "skip": if the loss or the gradient is not finite, or above grad_limit
    grad_limit: float = 0.0  # a step with a larger global gradient norm is bad; 0 = no limit
    data_timeout: float = 600.0  # seconds to wait for a batch before giving up
    parallel: str = "jit"  # "jit" over a mesh, or "pmap"
    mesh: Axes = DATA_PARALLEL  # see diffjax.mesh
    parts: Mapping[str, Mapping[str, Any]] = {}  # {top-level name of the parameters: the fields of its own `Part`}


DECAYS = ("constant", "cosine", "inverse_sqrt")
_LEAST = {"steps": 0, "batch_size": 1, "warmup": 0, "log_every": 1, "eval_every": 0, "save_every": 0}
_LEAST |= {"keep_every": 0, "accumulate": 1}


def training_config(fields: Mapping[str, Any]) -> TrainingConfig:
    """A checked `TrainingConfig` from a mapping such as `config.training` (a ConfigDict or a dict).

    Fields which are not given keep their default. Raises `InputError` for an unknown field or a value out of range.
    """
    for name in fields:
        if name not in TrainingConfig._fields:
            near = difflib.get_close_matches(name, TrainingConfig._fields, n=1) or [", ".join(TrainingConfig._fields)]
            raise InputError(f"training.{name} is not a field of the training section; did you mean {near[0]}?")
    config = TrainingConfig(**{name: fields[name] for name in fields})
    config = config._replace(parts=_parts(config.parts))
    for name, least in _LEAST.items():
        _check_integer(f"training.{name}", getattr(config, name), least)
    for name, part in config.parts.items():
        _check_part(f"training.parts.{name}", part)
    check_seed("training.seed", config.seed)
    if not (_is_number(config.learning_rate) and 0 < config.learning_rate < math.inf):
        raise InputError(f"training.learning_rate = {config.learning_rate!r} must be a finite number above 0")
    registry.choose("training.decay", config.decay, DECAYS)
    if config.decay == "cosine" and config.steps <= config.warmup:
        raise InputError(
            f"training.decay = 'cosine' needs steps after the warm-up: training.steps = {config.steps} must be above"
            f" training.warmup = {config.warmup}"
        )
    if not (_is_number(config.weight_decay) and 0 <= config.weight_decay < math.inf):
        raise InputError(f"training.weight_decay = {config.weight_decay!r} must be a finite number, 0 for Adam")
    if not (_is_number(config.grad_clip) and 0 <= config.grad_clip < math.inf):
        raise InputError(f"training.grad_clip = {config.grad_clip!r} must be a finite number, 0 to switch clipping off")
    if not (_is_number(config.ema_decay) and 0 <= config.ema_decay < 1):
        raise InputError(f"training.ema_decay = {config.ema_decay!r} must be at least 0 and below 1")
    _check_widths(config.ema_widths)
    if not (_is_number(config.grad_limit) and 0 <= config.grad_limit < math.inf):
        raise InputError(f"training.grad_limit = {config.grad_limit!r} must be a finite number, 0 for no limit")
    if not (_is_number(config.data_timeout) and config.data_timeout > 0):
        raise InputError(f"training.data_timeout = {config.data_timeout!r} must be a number of seconds above 0")
    if config.on_bad_step not in ("stop", "skip"):
        raise InputError(f"training.on_bad_step = {config.on_bad_step!r} must be 'stop' or 'skip'")
    check_axes(config.mesh)
    if not isinstance(config.flip, bool):
        raise InputError(f"training.flip = {config.flip!r} must be True or False")
    if config.parallel not in ("jit", "pmap"):
        raise InputError(f"parallel = {config.parallel!r} must be 'jit' or 'pmap'")
    return config


def _parts(value: Any) -> dict[str, dict[str, Any]]:
    """Any mapping of mappings as plain dicts."""
    try:
        return {str(name): dict(part) for name, part in dict(value).items()}
    except (TypeError, ValueError):
        raise InputError(
            f"training.parts = {value!r} must map names of parameters to fields, as dict(decoder=dict(learning_rate="
            "1e-4))"
        ) from None


def _check_part(name: str, part: Mapping[str, Any]) -> None:
    for field, value in part.items():
        if field not in Part._fields:
            raise InputError(f"{name}.{field} is not a field of a part; its fields are {', '.join(Part._fields)}")
        if field == "warmup":
            _check_integer(f"{name}.{field}", value, 0)
        elif not (_is_number(value) and 0 <= value < (math.inf if field == "learning_rate" else 1)):
            limits = "a finite number of at least 0" if field == "learning_rate" else "at least 0 and below 1"
            raise InputError(f"{name}.{field} = {value!r} must be {limits}")


def _check_widths(widths: object) -> None:
    if not isinstance(widths, tuple):
        raise InputError(f"training.ema_widths = {widths!r} must be a tuple of widths such as (0.05, 0.1), () for none")
    for i, width in enumerate(widths):
        averages.exponent(width, f"training.ema_widths[{i}]")
    if len(set(widths)) < len(widths):
        raise InputError(f"training.ema_widths = {widths!r} has a width twice; give each once")


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} = {value!r} must be an integer of at least {least}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
