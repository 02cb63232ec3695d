"""One training step on many devices: the state on every device, the batch divided between them.

    devices   d0        d1        ...            a mesh with the one axis "data"
    state     whole     whole     ...            P()
    batch     b[0:k]    b[k:2k]   ...            P("data"), k = batch / number of devices

`jit` compiles the step for the whole mesh and finds the all-reduces by itself; `pmap` runs it once per device, and the
step calls `pmean` by name. Both are called alike, through the four functions of a `Layout`. A fetched state has one
form in either mode: arrays without a device axis, replicated over the mesh. Checkpoints and evaluation see only that.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.training.step import Step


class Layout(NamedTuple):
    """How to place, run and fetch. `run` donates its state: the one passed in must not be used again."""

    replicated: NamedSharding  # of a fetched state: restore checkpoints into this
    place_state: Callable[[Any], Any]  # replicated -> what `run` takes
    place_batch: Callable[[Any], Any]  # this process's part of the batch (numpy) -> what `run` takes
    run: Callable[[Any, Any, Any], tuple[Any, Any]]  # (state, key, batch) -> (state, metrics)
    fetch_state: Callable[[Any], Any]  # what `run` returns -> replicated


def parallelize(step: Step, mode: str = "jit", devices: Sequence[jax.Device] | None = None) -> Layout:
    """Lays `step(state, key, batch, axis_name=None)` over `devices` (all of them unless given).

    With several processes, process p feeds the p-th contiguous part of the global batch.
    Raises `InputError` for an unknown mode, and from `place_batch` for a batch which the devices cannot share equally.
    """
    devices = jax.devices() if devices is None else list(devices)
    local = [d for d in devices if d.process_index == jax.process_index()]
    replicated = NamedSharding(Mesh(np.array(devices), ("data",)), P())
    split = NamedSharding(replicated.mesh, P("data"))

    if mode == "jit":

        def place_batch(batch):
            check_batch_size(_size(batch) * jax.process_count(), len(devices))
            return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)

        return Layout(
            replicated=replicated,
            place_state=lambda state: jax.device_put(state, replicated),
            place_batch=place_batch,
            run=jax.jit(step, donate_argnums=0, out_shardings=replicated),
            fetch_state=lambda state: state,
        )

    if mode == "pmap":
        # pmap takes and returns the arrays of this process only, with a leading axis over its devices.
        split_local = NamedSharding(Mesh(np.array(local), ("data",)), P("data"))

        def place_leaf(x):
            shards = [s.data[None] for s in jax.device_put(x, replicated).addressable_shards]
            return jax.make_array_from_single_device_arrays((len(local), *x.shape), split_local, shards)

        def fetch_leaf(x):
            shards = [s.data[0] for s in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape[1:], replicated, shards)

        def place_batch_pmap(batch):
            check_batch_size(_size(batch) * jax.process_count(), len(devices))
            return jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)

        return Layout(
            replicated=replicated,
            place_state=lambda state: jax.tree.map(place_leaf, state),
            place_batch=place_batch_pmap,
            run=jax.pmap(
                partial(step, axis_name="data"),
                axis_name="data",
                in_axes=(0, None, 0),
                out_axes=(0, None),
                devices=devices,
                donate_argnums=0,
            ),
            fetch_state=lambda state: jax.tree.map(fetch_leaf, state),
        )
    raise InputError(f"parallel = {mode!r} must be 'jit' or 'pmap'")


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raises `InputError` unless `devices` devices can share a batch equally."""
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = f"{below} or {above}" if below else f"{above}"
        raise InputError(
            f"training.batch_size = {batch_size} cannot be divided equally between {devices} devices; "
            f"the nearest batch sizes are {nearest}"
        )


def _size(batch) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
