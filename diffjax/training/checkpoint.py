"""Checkpoints of a run: DIRECTORY/STEP/{state, meta}, written in the background by orbax, checked when they are read.

A checkpoint is written under a temporary name and renamed when it is complete. So a directory whose name is a number is
a finished checkpoint, whenever the process was killed. The next writer removes half-written ones. A disk can still lose
or change bytes. So `meta` also holds a checksum of every array of the state and a checksum of itself. A checkpoint is
damaged if it cannot be read or differs from what was written. A damaged checkpoint is moved to DIRECTORY-damaged, never
deleted, and the previous one is used. Reading never executes anything: the content is JSON and numbers. The last two
checkpoints are kept, and every one whose step is a multiple of `keep_every`. Older ones are deleted only after a newer
one is finished.
"""

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax.errors import InputError
from diffjax.extras import needs_run
from diffjax.paths import local
from diffjax.training.checksum import Differs, checksums, names, unwrap, wrap
from diffjax.training.event_loops import patient_loops
from diffjax.training.state import is_narrow

with needs_run():
    import orbax.checkpoint as ocp
    from etils import epath
    from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

_ONCE = {"memory": "times"}  # field of the state -> its name in earlier checkpoints
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Checkpointer:
    """Saves and restores a state (a pytree of arrays) together with `meta` (JSON values; NaN comes back as None).

    Use it as a context manager, or call `close`: both wait for a running save. With several processes, all must make
    the same calls. `read_only` changes nothing in the directory, not even the half-written checkpoints of a training
    that is still running.

    If a save fails, the next call of `save`, `restore`, `wait` or `close` raises an `InputError`.
    """

    def __init__(self, directory: str | Path, keep_every: int = 0, read_only: bool = False):
        self.directory = local(directory, "directory").absolute()
        if read_only and not self.directory.is_dir():
            raise InputError(f"there are no checkpoints in {self.directory}: no such directory")
        self._read_only = read_only
        self._first = jax.process_index() == 0  # of several processes, the one that moves, removes and speaks
        self._skipped: set[int] = set()  # damaged checkpoints that were not moved
        self._saving: int | None = None
        self._reader = ocp.StandardCheckpointHandler()
        if not read_only and self._first:
            self._remove_half_written()
        keep = [LatestN(2), *([EveryNSteps(keep_every)] if keep_every else [])]
        try:
            if not read_only:
                self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                # Handlers are given, so that the manager can also read a directory that it has not yet saved to.
                item_handlers={"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()},
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy(keep),
                    cleanup_tmp_directories=False,  # orbax does it in a thread, and a short run would not wait for it
                    lightweight_initialize=True,
                    create=False,
                    read_only=read_only,
                    enable_async_checkpointing=True,
                ),
            )
        except OSError as error:
            raise InputError(
                f"checkpoints cannot be kept in {self.directory}: {error.strerror}; choose another directory"
            ) from error
        self._until_closed = contextlib.ExitStack()
        self._until_closed.enter_context(patient_loops())

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps of the finished checkpoints, ascending, without those found damaged by `restore`."""
        return sorted(set(self._manager.all_steps()) - self._skipped)

    def latest_step(self) -> int | None:
        """The last of `steps`, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts a save, and returns when the state may be donated. Does nothing if this step is already saved."""
        self.wait()
        if step in self._manager.all_steps():
            return
        wrapped = wrap(meta, checksums(state))
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(wrapped))
        self._saving = step
        try:
            self._manager.save(step, args=args, force=True)
        except Exception as error:
            raise self._not_written(error) from error

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The state and the meta of a step. If `step` is None, of the newest checkpoint that is not damaged.

        `abstract_state` is a tree of `ShapeDtypeStruct`, see `loop.abstract_state`. Its shardings say where the arrays
        go; they may differ from the shardings at the time of the save. Damaged checkpoints newer than the one used are
        reported on stderr and, unless `read_only`, moved to DIRECTORY-damaged.

        Raises `InputError` if there is no such step, if it is damaged, if all checkpoints are damaged, or if a
        checkpoint holds other arrays than `abstract_state` asks for. In these cases nothing is moved.
        """
        self.wait()
        steps = self.steps()
        if step not in steps and (step is not None or not steps):
            there = f"the steps there are {', '.join(map(str, steps))}" if steps else "there are none"
            raise InputError(f"no checkpoint of step {step} in {self.directory}; {there}")
        problems: dict[int, Exception] = {}
        for candidate in steps[::-1] if step is None else [step]:
            try:
                restored = self._read(candidate, abstract_state)
            except Exception as error:  # damaged files fail in many ways
                problems[candidate] = error
            else:
                self._set_aside(problems, candidate)
                return restored
        # If one does not fit and none can be used, the configuration is wrong.
        for problem in problems.values():
            if isinstance(problem, InputError):
                raise problem
        found = "; ".join(f"{candidate}: {_sentence(problem)}" for candidate, problem in problems.items())
        which = "every checkpoint" if step is None else f"checkpoint {step}"
        raise InputError(
            f"{which} in {self.directory} is damaged ({found}); nothing was deleted; "
            + ("use another workdir to start from scratch" if step is None else "choose another step")
        )

    def wait(self) -> None:
        """Returns when nothing is being written."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # it can only repeat an error that is already reported
                self._manager.close()
            self._until_closed.close()

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """Reads without the manager: that would wait for the other processes if this one has failed."""
        path = epath.Path(self.directory / str(step))
        problem = None
        try:
            saved, there = self._as_saved(step, abstract_state)
            meta, written = unwrap(ocp.JsonCheckpointHandler().restore(path / "meta"))
            asked = {old: getattr(saved, name) for name, old in there.items()} if there else saved
            state = self._reader.restore(path / "state", args=ocp.args.StandardRestore(asked))
            if there:
                state = saved._replace(**{name: state[old] for name, old in there.items()})
        except Exception as error:
            problem = error
        failed = np.array(problem is not None)
        if jax.process_count() > 1:
            failed = multihost_utils.process_allgather(failed)
        if failed.any():
            raise problem or Differs("another process cannot read it")
        if written is not None:
            read, written = checksums(state), _renamed(written, there)
            for name in sorted(read.keys() | written.keys()):
                if read.get(name) != written.get(name):
                    raise Differs(f"{name} differs from its checksum")
        return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), state, abstract_state), meta

    def _as_saved(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, str]]:
        """`abstract_state` with the dtypes of the checkpoint, and {field: its name in the checkpoint}.

        A field that was introduced after the checkpoint is absent. Then it must have no arrays.
        Raises `InputError` if the checkpoint does not fit.
        """
        tree = self._reader.metadata(epath.Path(self.directory / str(step) / "state")).tree
        fields = getattr(abstract_state, "_fields", ())
        once = {name: old for name, old in _ONCE.items() if name in fields and old in tree and old not in fields}
        there = {name: once.get(name, name) for name in fields if once.get(name, name) in tree}
        saved = _renamed(_arrays(tree), there)
        wanted = _arrays(ocp.tree.serialize_tree(abstract_state, keep_empty_nodes=True))
        for name in sorted(saved.keys() | wanted.keys()):
            old, new = saved.get(name), wanted.get(name)
            if old is None or new is None or old.shape != new.shape or not _fits(name, old.dtype, new.dtype):
                raise InputError(
                    f"checkpoint {step} in {self.directory} does not fit this configuration: {name} is "
                    f"{_words(old)} in the checkpoint and {_words(new)} in the model; "
                    "use the configuration it was trained with, or another workdir"
                )
        types = iter([saved[name].dtype for name in names(abstract_state)])
        typed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, next(types), sharding=x.sharding), abstract_state)
        return typed, there

    def _set_aside(self, problems: dict[int, Exception], used: int) -> None:
        for step, problem in problems.items():
            place = "it is left where it is"
            if self._read_only:
                self._skipped.add(step)
            elif self._first:
                place = f"it was moved to {self._move(step)}"
            if self._first:
                print(
                    f"warning: checkpoint {step} in {self.directory} is damaged ({_sentence(problem)}); {place}, "
                    f"and checkpoint {used} is used instead",
                    file=sys.stderr,
                )
        if problems and not self._read_only:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("damaged checkpoints are moved")
            self._manager.reload()

    def _move(self, step: int) -> Path:
        aside = self.directory.with_name(self.directory.name + "-damaged")
        target, again = aside / str(step), 0
        while target.exists():
            again += 1
            target = aside / f"{step}-{again}"
        try:
            aside.mkdir(exist_ok=True)
            shutil.move(self.directory / str(step), target)
        except OSError as error:
            raise InputError(
                f"checkpoint {step} in {self.directory} is damaged, and cannot be moved to {target}: {error.strerror}; "
                "move it away"
            ) from error
        return target

    def _not_written(self, error: Exception) -> InputError:
        with contextlib.suppress(Exception):
            self._remove_half_written()
            self._manager.reload()  # the checkpoints it planned to delete are still there
        earlier = ", ".join(str(step) for step in self.steps() if step != self._saving)
        code = _error_code(error)
        return InputError(
            f"checkpoint of step {self._saving} could not be written to {self.directory}: "
            f"{os.strerror(code) if code else error}; "
            + (f"the earlier checkpoints (steps {earlier}) are kept; " if earlier else "there is no earlier one; ")
            + f"{'free some space' if code in _NO_SPACE else 'put that right'} and start again"
        )

    def _remove_half_written(self) -> None:
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _arrays(tree: Any) -> dict[str, Any]:
    return dict(zip(names(tree), jax.tree.leaves(tree), strict=True))


def _renamed(arrays: dict[str, Any], there: dict[str, str]) -> dict[str, Any]:
    """The arrays under their current names: "memory/seen" for "times/seen"."""
    now = {old: name for name, old in there.items()}
    parts = [name.split("/", 1) for name in arrays]
    return {
        "/".join([now.get(first, first), *rest]): x for (first, *rest), x in zip(parts, arrays.values(), strict=True)
    }


def _words(x: Any) -> str:
    return "absent" if x is None else f"{x.dtype}{list(x.shape)}"


def _fits(name: str, saved: Any, wanted: Any) -> bool:
    """Whether the dtypes fit. Earlier checkpoints have 16-bit means and moments; these fit and become float32."""
    return saved == wanted or (is_narrow(saved) and wanted == np.float32 and not name.startswith("params"))


def _error_code(error: BaseException) -> int | None:
    """The operating system's error code behind `error`, which may be a library's exception that only quotes it."""
    return next((code for code in errno.errorcode if os.strerror(code) in str(error)), None)


def _sentence(error: Exception) -> str:
    if isinstance(error, InputError):
        return "its metadata does not fit the configuration"
    if isinstance(error, Differs):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"it cannot be read: {text if len(text) <= 120 else text[:120] + '...'}"
