"""One training step on many devices: the state lies on a mesh, and the batch is divided between all devices.

    devices            d0        d1        ...
    batch              b[0:k]    b[k:2k]   ...        k = batch / number of devices
    state, jit         as `shardings` says: divided along the axis "model", whole along "data" (see diffjax.mesh)
    state, pmap        whole     whole     ...

`jit` compiles the step for the whole mesh and finds the collectives itself. `pmap` runs the step once per device, and
the step calls `pmean` by name. Both are used in the same way, through the functions of a `Layout`. In both modes a
fetched state has the same form: arrays over the mesh, without a device axis. Checkpoints and evaluation see only this.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.mesh import DATA_PARALLEL, Axes, divided, gather, make_mesh, whole
from diffjax.training.step import Step

SMALLEST = 2**10  # elements: dividing a smaller array costs more in messages than it saves in memory


class Layout(NamedTuple):
    """How to place, run and fetch. `run` donates its state: do not use the state that you passed in again."""

    mesh: Mesh
    shardings: Callable[[Any], Any]  # shapes of a state -> shardings of a fetched one; initialise or restore into them
    place_state: Callable[[Any], Any]  # a fetched state -> what `run` takes
    place_batch: Callable[[Any], Any]  # this process's part of the batch (numpy) -> what `run` takes
    run: Callable[[Any, Any, Any], tuple[Any, Any]]  # (state, key, batch) -> (state, metrics)
    fetch_state: Callable[[Any], Any]  # what `run` returns -> a fetched state


def parallelize(
    step: Step, mode: str = "jit", devices: Sequence[Any] | None = None, axes: Axes = DATA_PARALLEL
) -> Layout:
    """Lays `step(state, key, batch, axis_name=None, gather=None)` over `devices` (all of them unless given).

    With several processes, process p feeds the p-th contiguous part of the global batch.
    Raises `InputError` if the mode is unknown, if the axes do not fit the devices, or if they divide the state under
    "pmap". `place_batch` raises it if the batch cannot be divided equally between the devices.
    """
    mesh = make_mesh(axes, devices)
    if mode == "jit":
        return _by_jit(step, mesh)
    if mode != "pmap":
        raise InputError(f"parallel = {mode!r} must be 'jit' or 'pmap'")
    if mesh.shape["model"] > 1:
        raise InputError(f"mesh = {tuple(axes)} divides the state, and parallel = 'pmap' cannot; use 'jit'")
    return _by_pmap(step, mesh)


def _by_jit(step: Step, mesh: Mesh) -> Layout:
    def place_batch(batch):
        check_batch_size(_size(batch) * jax.process_count(), mesh.size)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(divided(mesh), x), batch)

    def run(state, key, batch):
        new, metrics = step(state, key, batch, gather=partial(_gather, mesh))
        return jax.lax.with_sharding_constraint(new, _shardings(mesh, new)), gather(mesh, metrics)

    return Layout(
        mesh=mesh,
        shardings=partial(_shardings, mesh),
        place_state=lambda state: jax.device_put(state, _shardings(mesh, state)),
        place_batch=place_batch,
        run=jax.jit(run, donate_argnums=0),
        fetch_state=lambda state: state,
    )


def _by_pmap(step: Step, mesh: Mesh) -> Layout:
    # pmap takes and returns only the arrays of this process, with a leading axis over its devices.
    local = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    split_local = NamedSharding(Mesh(np.array(local), ("data",)), P("data"))
    replicated = whole(mesh)

    def place_leaf(x):
        shards = [s.data[None] for s in jax.device_put(x, replicated).addressable_shards]
        return jax.make_array_from_single_device_arrays((len(local), *x.shape), split_local, shards)

    def fetch_leaf(x):
        shards = [s.data[0] for s in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape[1:], replicated, shards)

    def place_batch(batch):
        check_batch_size(_size(batch) * jax.process_count(), mesh.size)
        return jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)

    return Layout(
        mesh=mesh,
        shardings=lambda state: jax.tree.map(lambda x: replicated, state),
        place_state=lambda state: jax.tree.map(place_leaf, state),
        place_batch=place_batch,
        run=jax.pmap(
            partial(step, axis_name="data"),
            axis_name="data",
            in_axes=(0, None, 0),
            out_axes=(0, None),
            devices=list(mesh.devices.flat),
            donate_argnums=0,
        ),
        fetch_state=lambda state: jax.tree.map(fetch_leaf, state),
    )


def check_batch_size(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Raises `InputError` unless `devices` devices can share each of `accumulate` parts of a batch equally."""
    parts = devices * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        nearest = f"{below} or {above}" if below else f"{above}"
        between = f"{devices} devices" + (f" in {accumulate} parts" if accumulate > 1 else "")
        raise InputError(
            f"training.batch_size = {batch_size} cannot be divided equally between {between}; "
            f"the nearest batch sizes are {nearest}"
        )


def _shardings(mesh: Mesh, state: Any) -> Any:
    """Divides each array along "model", at its longest axis that is divisible. Small arrays stay whole."""
    parts = mesh.shape["model"]

    def of(x: Any) -> NamedSharding:
        able = [axis for axis in range(x.ndim) if x.shape[axis] % parts == 0]
        if parts == 1 or x.size < SMALLEST or not able or jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return whole(mesh)
        longest = max(able, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, P(*[None] * longest, "model"))

    return jax.tree.map(of, state)


def _gather(mesh: Mesh, params: Any) -> Any:
    """`gather` with a gradient that leaves each device only its part: a reduce-scatter, not an all-reduce."""

    @jax.custom_vjp
    def gathered(params: Any) -> Any:
        return gather(mesh, params)

    def back(_: None, gradient: Any) -> tuple[Any]:
        return (jax.lax.with_sharding_constraint(gradient, _shardings(mesh, gradient)),)

    gathered.defvjp(lambda params: (gather(mesh, params), None), back)
    return gathered(params)


def _size(batch) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
