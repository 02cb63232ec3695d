"""`--mode=plan`: what training needs on each device of a mesh. The devices need not exist.

Nothing of the model's size is allocated and no data are read. See `diffjax.training.plan` for what is counted.
"""

import math
import os
from functools import cache
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffjax import zoo
from diffjax.errors import InputError
from diffjax.training.loop import abstract_state
from diffjax.training.plan import Costs, OutOfMemory, Program, abstract_batch, bytes_of, compile_step, costs, largest
from diffjax.training.sharding import check_batch_size, parallelize
from diffjax.training.state import optimizer, part_of
from diffjax.training.step import make_step
from experiments.opened import settings_of

# Libtpu is only used to compile. Without these variables it would ask the network for its TPU, complain that there is
# none, and let no other process load it.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
HELP = "a smaller data.shape or network, net.remat=True, net.dtype='bfloat16', or more devices along the axis 'model'"


def plan(config: ConfigDict, topology: str, memory: float | None) -> None:
    """Prints a training step's bytes on each device, its collectives and, with `memory`, the largest batch that fits.

    topology   a slice of TPUs to compile for, e.g. "v5e:2x4" (needs the package libtpu); "": jax.devices()
    memory     GiB of each device
    Raises `InputError` for an unknown topology, and for parallel = 'pmap'.
    """
    settings = settings_of(config)
    if settings.parallel != "jit":
        raise InputError(f"--mode=plan: parallel = {settings.parallel!r} has no program to plan with; use 'jit'")
    if memory is not None and not 0 < memory < math.inf:
        raise InputError(f"--memory = {memory} must be a finite number of GiB above 0")
    devices = tpus(topology) if topology else jax.devices()
    check_batch_size(settings.batch_size, len(devices), settings.accumulate)
    model = zoo.make(config)
    step = make_step(model, optimizer(settings), settings)
    layout = parallelize(step, "jit", devices, settings.mesh)
    mesh = layout.mesh
    state = abstract_state(layout, model, settings)

    def batch_of(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return abstract_batch(mesh, tuple(config.data.shape), config.data.levels, size)

    def costs_of(size: int) -> Costs:
        return costs(mesh, model, settings, state, batch_of(size))

    size = settings.batch_size
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    print(f"{_axes(mesh)}: {mesh.size} devices ({devices[0].device_kind}), {parameters:,} parameters")
    for name in settings.parts:
        moved = ", ".join(f"{field} {value:g}" for field, value in part_of(settings, name)._asdict().items())
        print(f"  part {name}: {sum(x.size for x in jax.tree.leaves(state.params[name])):,} parameters, {moved}")
    print(f"a step of {size} examples, {size // mesh.size} on each device{parts}")
    by_shapes = costs_of(size)
    print("\nby shapes, on each device")
    for name, value in by_shapes._asdict().items():
        print(f"  {name:<12} {_bytes(value)}")
    print(f"  {'together':<12} {_bytes(sum(by_shapes))}", flush=True)

    @cache
    def compiled(size: int) -> Program | str:
        """The compiled step, or the compiler's message that it does not fit on the device."""
        try:
            return compile_step(layout, state, batch_of(size))
        except OutOfMemory as error:
            return str(error)

    _show(compiled(size), settings.accumulate)
    if memory is None:
        return
    unit = mesh.size * settings.accumulate

    def peak(parts: int) -> float:
        if not topology:
            return sum(costs_of(unit * parts))
        program = compiled(unit * parts)
        return program.peak if isinstance(program, Program) else math.inf

    # The part that does not depend on the batch. (The compiler reuses memory of activations for gradients.)
    least = bytes_of(state) if topology else sum(by_shapes._replace(batch=0, activations=0, recomputed=0))
    best = largest(peak, memory * 2**30, least, size // unit) * unit
    how = "compiled at it and at the next" if topology else "an estimate, by shapes"
    if best:
        print(f"\nlargest batch in {memory:g} GiB a device: {best} examples a step ({how})")
    else:
        print(f"\nnot even a batch of {unit} fits in {memory:g} GiB a device ({how}); what helps: {HELP}")


def tpus(topology: str) -> list[Any]:
    """The devices of a slice of TPUs, which need not exist. Raises `InputError`."""
    from jax.experimental import topologies

    os.environ.update(LIBTPU)
    jax.config.update("jax_platforms", "cpu")  # otherwise jax looks for TPUs on this machine
    try:
        return list(topologies.get_topology_desc(topology, "tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--topology={topology} cannot be had ({reason}); write a slice of TPUs like v5e:2x4"
        ) from None
    except RuntimeError:
        raise InputError(
            f"--topology={topology} needs TPU's compiler: pip install libtpu, or plan for CPU with --devices=N"
        ) from None


def _show(program: Program | str, accumulate: int) -> None:
    if isinstance(program, str):
        print(f"\nthe step does not fit on this device, says its compiler: {program}", flush=True)
        return
    print("\nby its compiled program, on each device")
    for name in ("arguments", "outputs", "aliased", "temporary", "code"):
        print(f"  {name:<12} {_bytes(getattr(program, name))}")
    print(f"  {'peak':<12} {_bytes(program.peak)}   arguments + outputs - aliased + temporary")
    once = ", each once: what is in the loop over the parts runs once for each" if accumulate > 1 else ""
    print(f"\ncollectives of a step, with the bytes of one device{once}")
    for kind, (number, moved) in program.collectives.items():
        print(f"  {kind:<18} {number:>5}  {_bytes(moved)}")
    if not program.collectives:
        print("  none")
    print(end="", flush=True)


def _axes(mesh: Mesh) -> str:
    return " x ".join(f"{name} {size}" for name, size in mesh.shape.items())


def _bytes(num: int) -> str:
    power = min(max(num.bit_length() - 1, 0) // 10, 3)
    return f"{num / 2 ** (10 * power):>8.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
