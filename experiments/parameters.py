"""The parameters of a run: from a checkpoint, and at the start of training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.mesh import here
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.loop import abstract_state
from diffjax.training.posthoc import post_hoc
from diffjax.training.sharding import parallelize
from diffjax.training.state import TrainState, init_state, optimizer
from diffjax.training.step import make_step
from experiments import weights_file
from experiments.opened import Run, check_teacher, open_run, open_saved
from experiments.writer import writer_of


def restore_ema(run: Run, step: int | None) -> tuple[int, Any]:
    """The step and the EMA weights of a checkpoint, on the configuration's mesh. If `step` is None, of the newest one.

    The weights are the average of `evaluation.ema_width`. If training did not keep that width, it is made from several
    checkpoints.
    """
    wanted, widths = wanted_of(run), run.settings.ema_widths
    with Checkpointer(run.checkpoints, read_only=True) as checkpointer:
        state, _ = checkpointer.restore(wanted, step)
        step = int(state.step)
        if run.ema_width in (0, *widths):
            return step, mean_of(run, state)
        del state  # frees its memory before other states are read
        made = post_hoc(checkpointer, wanted, widths, run.ema_width, step)
    writer_of(run.directory).say(
        f"ema_width {run.ema_width:g}: of the widths {', '.join(map('{:g}'.format, widths))} in {len(made.steps)}"
        f" checkpoint(s), with a profile {made.error:.2%} off"
    )
    return step, made.average


def mean_of(run: Run, state: TrainState) -> Any:
    """The average in the state that `evaluation.ema_width` names."""
    return state.averages[run.settings.ema_widths.index(run.ema_width)] if run.ema_width else state.ema


def wanted_of(run: Run) -> Any:
    """The shapes of the state, with their shardings on the configuration's mesh."""
    step = make_step(run.model, optimizer(run.settings), run.settings)
    layout = parallelize(step, run.settings.parallel, axes=run.settings.mesh)
    return abstract_state(layout, run.model, run.settings)


def start(run: Run, given: Mapping[str, Any]) -> None:
    """Writes checkpoint 0 with fitted or given parameters, unless there are checkpoints. Training then restores it."""
    model, settings = run.model, run.settings
    with Checkpointer(run.checkpoints, settings.keep_every) as checkpointer:
        if checkpointer.latest_step() is not None:
            return
        key = jax.random.key(settings.seed, impl="threefry2x32")
        state = jax.jit(lambda key: init_state(key, model, optimizer(settings), settings.ema_widths))(key)
        params = state.params
        if model.examples.fit is not None:
            train_set = run.train_set()
            params = model.examples.fit(params, train_set.gather(np.arange(len(train_set))))
        params = params | given if given else params
        params, ema = (
            jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), params, like)
            for like in (state.params, state.ema)
        )
        places = jax.tree.map(lambda x: x.sharding, wanted_of(run))
        memory = None if model.memory is None else model.memory.init(params)  # it may keep a copy of the parameters
        state = state._replace(params=params, ema=ema, averages=(ema,) * len(state.averages), memory=memory)
        state = jax.device_put(state, places)
        checkpointer.save(0, state, {"config": run.saved, "step": 0, "examples_seen": 0})


def given_to(run: Run) -> dict[str, Any]:
    """The parts of the parameters, by name, that this run shares with the newest checkpoint of `init_from`."""
    if not run.init_from:
        return {}
    field = "distillation.teacher" if run.distils else "init_from"
    theirs, others = _opened(run.init_from, field)
    if run.distils:
        check_teacher(run, theirs)
    ours, found = (opened.saved.get("net", {}).get("conventions") or {} for opened in (run, theirs))
    if ours != found:
        raise InputError(
            f"{field}={run.init_from!r} has a network with net.conventions={found}, and this run has {ours or 'none'}:"
            " weights of the one mean something else in the other; begin with the configuration of that run"
        )
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))
    shared = shapes.keys() & others.keys()
    few = shapes.keys() != others.keys() if run.distils else not shared
    if few or any(_shapes(shapes[name]) != _shapes(others[name]) for name in shared):
        raise InputError(
            f"{field}={run.init_from!r} has the parts {', '.join(others)}, of which none is one of "
            f"{', '.join(shapes)}, or not of the same sizes: name a run with the same network"
        )
    return {name: others[name] for name in shared}


def _opened(place: str, field: str) -> tuple[Run, Any]:
    """A run and its EMA weights, from a workdir (the newest ones) or from a file of weights."""
    if not place.endswith(weights_file.SUFFIX):
        run = open_saved(place, field)
        return run, here(run.mesh, restore_ema(run, None)[1])
    found = weights_file.read(place, field)
    run = open_run(found.config, found.path.parent)
    return run, found.params(jax.eval_shape(run.model.init, jax.random.key(0)))


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda x: x.shape, params)
