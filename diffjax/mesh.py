"""Devices as a mesh of two axes, "data" and "model", and per-example functions spread over them.

    axis     a batch        the training state
    data     is divided     is whole
    model    is divided     is divided: parameters, their mean and the optimiser's moments (FSDP, ZeRO 3)

(("data", -1), ("model", 1)) is data parallelism, and (("data", 1), ("model", -1)) shards everything fully. Anything
between does both: with (("data", 2), ("model", 4)) each group of four neighbours holds one copy of the state. -1 stands
for the remaining devices. No axis changes the mathematics: the weights of a layer are gathered to compute it.

Devices are in jax's order: process p holds the p-th contiguous part of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError

Axes = Sequence[tuple[str, int]]
AXES = ("data", "model")
DATA_PARALLEL: Axes = (("data", -1), ("model", 1))


def make_mesh(axes: Axes = DATA_PARALLEL, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `devices`; None means all devices.

    Raises:
        InputError: unless the axes are "data" and "model", each at most once, and the product of their sizes is the
            number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    check_axes(axes)
    sizes = {"data": 1, "model": 1} | dict(axes)
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    rest = len(devices) // known
    shape = [rest if sizes[name] == -1 else sizes[name] for name in AXES]
    if np.prod(shape) != len(devices):
        raise InputError(
            f"mesh = {tuple(axes)} is for {known if -1 not in sizes.values() else f'a multiple of {known}'} devices, "
            f"but there are {len(devices)}; let the sizes multiply to {len(devices)}, -1 being what is left"
        )
    return Mesh(np.array(devices).reshape(shape), AXES)


def check_axes(axes: Axes) -> None:
    """Raises `InputError` unless `axes` is ((name, size), ...) as above. It does not look at the devices."""
    like = "write it as (('data', -1), ('model', 1)), where -1, once, is what is left of the devices"
    try:
        sizes = [(str(name), size) for name, size in axes]
    except (TypeError, ValueError):
        raise InputError(f"mesh = {axes!r} is not a sequence of (axis, size); {like}") from None
    names = [name for name, _ in sizes]
    if sorted(set(names)) != sorted(names) or not set(names) <= set(AXES):
        raise InputError(f"mesh = {tuple(axes)} has the axes {', '.join(names)}, not data and model; {like}")
    whole = all(isinstance(size, int) and not isinstance(size, bool) and (size > 0 or size == -1) for _, size in sizes)
    if not whole or [size for _, size in sizes].count(-1) > 1:
        raise InputError(f"mesh = {tuple(axes)} has sizes that are not positive integers; {like}")


def whole(mesh: Mesh) -> NamedSharding:
    """Everything on every device."""
    return NamedSharding(mesh, P())


def divided(mesh: Mesh) -> NamedSharding:
    """The leading axis divided between all devices."""
    return NamedSharding(mesh, P(AXES))


def gather(mesh: Mesh, tree: Any) -> Any:
    """Inside jit: makes the arrays whole on every device, to compute with them."""
    return jax.lax.with_sharding_constraint(tree, whole(mesh))


def spread(fn: Callable[..., Any], mesh: Mesh, batch_at: int = 2) -> Callable[..., Any]:
    """`jax.jit(fn)` over all devices of the mesh, for an `fn` that treats the examples of a batch alike.

    Argument number `batch_at` is a tree of numpy arrays (batch, ...), the same in every process. Each device gets its
    part. The other arguments and the result are whole on every device, so numpy reads all of the result in every
    process. Raises `InputError` if the devices cannot share the batch equally.
    """

    def place(x: np.ndarray) -> jax.Array:
        if len(x) % mesh.size:
            raise InputError(f"a batch of {len(x)} examples cannot be divided equally between {mesh.size} devices")
        return jax.make_array_from_callback(x.shape, divided(mesh), lambda index: x[index])

    def gathered(*args: Any) -> Any:
        return fn(*(arg if i == batch_at else gather(mesh, arg) for i, arg in enumerate(args)))

    compiled = jax.jit(gathered, out_shardings=whole(mesh))
    return lambda *args: compiled(*(jax.tree.map(place, a) if i == batch_at else a for i, a in enumerate(args)))


def share(mesh: Mesh, num: int) -> int:
    """`num`, rounded up to a multiple of the number of devices: a batch size that they can share."""
    return -(-num // mesh.size) * mesh.size


def here(mesh: Mesh, tree: Any) -> Any:
    """Arrays of the mesh, whole on one device of this process: for functions that are not spread."""
    together = jax.jit(lambda t: t, out_shardings=whole(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), together)
