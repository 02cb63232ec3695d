"""Checkpoints of a run: DIRECTORY/STEP/{state, meta}, written in the background by orbax.

A checkpoint is written under a temporary name and renamed when it is whole, so a directory whose name is a number is a
finished checkpoint, whenever the process was killed. Half-written ones are ignored, and removed before the next save.
Kept: the last two, and every one whose step is a multiple of `keep_every`.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from diffjax.errors import InputError


class Checkpointer:
    """Saves and restores a state (a pytree of arrays) together with `meta` (what JSON can say).

    Use as a context manager, or call `close`: both wait for a save under way. With several processes all of them must
    make the same calls. `read_only` leaves the directory as it is, half-written checkpoints of a running training too.
    """

    def __init__(self, directory: str | Path, keep_every: int = 0, read_only: bool = False):
        self.directory = Path(directory).absolute()
        if read_only and not self.directory.is_dir():
            raise InputError(f"there are no checkpoints in {self.directory}: no such directory")
        keep = [LatestN(2), *([EveryNSteps(keep_every)] if keep_every else [])]
        self._manager = ocp.CheckpointManager(
            self.directory,
            # Named, so that a directory which this process has not yet saved to can be looked into.
            item_handlers={"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(keep),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The step of the newest finished checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts a save and returns once the state may be donated. A step which is already saved is left as it is."""
        if step not in self._manager.all_steps():
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
            self._manager.save(step, args=args, force=True)

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The state and the meta of a step, of the newest one if `step` is None.

        `abstract_state` is a tree of `ShapeDtypeStruct`, see `abstract`; its shardings say where the arrays go, which
        need not be where they were saved from. Raises `InputError` when there is no such step, or when the checkpoint
        holds other arrays than `abstract_state` asks for.
        """
        steps = self.steps()
        wanted = self.latest_step() if step is None else step
        if wanted not in steps:
            there = f"the steps there are {', '.join(map(str, steps))}" if steps else "there are none"
            raise InputError(f"no checkpoint of step {wanted} in {self.directory}; {there}")
        self._check_fits(wanted, abstract_state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(wanted, args=args)
        return restored.state, restored.meta

    def wait(self) -> None:
        """Returns when nothing is being written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def _check_fits(self, step: int, abstract_state: Any) -> None:
        saved = _shapes(self._manager.item_metadata(step).state.tree)
        wanted = _shapes(ocp.tree.serialize_tree(abstract_state, keep_empty_nodes=True))
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise InputError(
                    f"checkpoint {step} in {self.directory} does not fit this configuration: {name} is "
                    f"{saved.get(name, 'absent')} in the checkpoint and {wanted.get(name, 'absent')} in the model; "
                    "use the configuration it was trained with, or another workdir"
                )


def abstract(state: Any, sharding: Sharding) -> Any:
    """The shapes and dtypes of `state` (arrays, or the result of `jax.eval_shape`), each with `sharding`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def _shapes(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}" for path, x in leaves}
