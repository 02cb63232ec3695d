"""Plans the memory of a training step on each device of a mesh, without allocating anything. There are two ways.

From shapes: `costs` adds up

    state        parameters, their running means, the optimiser's moments, as the layout divides them
    batch        the device's share
    gathered     the whole parameters, if the state is divided: the loss needs them whole
    gradients    of the whole parameters; if a batch is accumulated in parts, also their sum in at least 32 bits
    activations  what the loss keeps for the backward pass, for one part of the device's share
    recomputed   what the largest block under remat keeps during its own backward pass

The last two count the arrays that JAX keeps for the derivative, each once, without parameters and batch. They take
account of remat and bfloat16, but not of what a compiler recomputes or fuses. For batch size n they grow as a + b n.

From the compiled program: `compile_step` reads the memory and the collectives of the step from the compiler's report.
"""

import re
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params
from jax.sharding import Mesh

from diffjax.mesh import divided, whole
from diffjax.training.config import TrainingConfig
from diffjax.training.sharding import Layout
from diffjax.training.state import Trainable, TrainState, widened

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OPERATION = re.compile(rf"({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+\(.*)$")


class Costs(NamedTuple):
    """Bytes on one device, see the module's docstring."""

    parameters: int
    ema: int  # with the averages of training.ema_widths
    optimizer: int  # its moments, with the step number and the system's memory
    batch: int
    gathered: int
    gradients: int
    activations: int
    recomputed: int


class Program(NamedTuple):
    """Bytes on one device for a compiled step. `collectives` maps a kind to (how many, bytes)."""

    arguments: int
    outputs: int
    aliased: int  # outputs that reuse the memory of donated arguments
    temporary: int
    code: int
    collectives: dict[str, tuple[int, int]]

    @property
    def peak(self) -> int:
        return self.arguments + self.outputs - self.aliased + self.temporary


class OutOfMemory(Exception):
    """The compiler found that the step does not fit on its device."""


def abstract_batch(mesh: Mesh, shape: tuple[int, ...], levels: int, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of `data.batches`. `size` is the number of examples over all devices."""
    place = divided(mesh)
    image = jax.ShapeDtypeStruct((size, *shape), jnp.uint8 if levels else jnp.float32, sharding=place)
    return {"image": image, "label": jax.ShapeDtypeStruct((size,), jnp.int32, sharding=place)}


def costs(
    mesh: Mesh,
    model: Trainable,
    config: TrainingConfig,
    state: TrainState,
    batch: dict[str, jax.ShapeDtypeStruct],
) -> Costs:
    """What one device needs for a step; `state` and `batch` are shapes with shardings on the mesh."""
    held, full = bytes_of(state.params), sum(map(_size, jax.tree.leaves(state.params)))
    size = len(batch["label"])
    num = size // (mesh.size * config.accumulate)
    memory = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.memory)
    drawn: dict[str, Any] = {}
    if (remembers := model.memory) is not None:
        drawn = jax.eval_shape(lambda memory: remembers.draw(memory, jax.random.key(0), size), memory)
    part = {name: jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype) for name, x in (batch | drawn).items()}
    part |= {"memory": memory}
    wide = jax.eval_shape(widened, state.params)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num))
    weights = jax.ShapeDtypeStruct((num,), jnp.float32)

    def mean_loss(params: Any, keys: Any, part: Any, weights: Any) -> jax.Array:
        return jnp.mean(weights * model.loss(params, keys, part))

    return Costs(
        parameters=held,
        ema=bytes_of((state.ema, state.averages)),
        optimizer=bytes_of((state.opt_state, state.memory, state.step)),
        batch=bytes_of(batch),
        gathered=full if held < full else 0,
        gradients=full + (sum(map(_size, jax.tree.leaves(wide))) if config.accumulate > 1 else 0),
        activations=saved_bytes(mean_loss, state.params, keys, part, weights),
        recomputed=max(
            map(_inside, _remats(jax.make_jaxpr(mean_loss)(state.params, keys, part, weights).jaxpr)), default=0
        ),
    )


def bytes_of(tree: Any) -> int:
    """The largest number of bytes that a device holds of a tree of arrays or shapes, each with its sharding."""
    return sum(prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def saved_bytes(fn: Callable[..., Any], params: Any, *rest: Any) -> int:
    """Bytes kept for the gradient of `fn(params, *rest)` with respect to `params`, without the arguments themselves."""

    def way_back(params: Any, *rest: Any) -> Any:
        return jax.vjp(lambda p: fn(p, *rest), params)[1]

    jaxpr = jax.make_jaxpr(way_back)(params, *rest).jaxpr
    kept = {x for x in jaxpr.outvars if not isinstance(x, Literal)}
    return sum(_size(x.aval) for x in kept - {*jaxpr.invars, *jaxpr.constvars})


def compile_step(layout: Layout, state: TrainState, batch: dict[str, jax.ShapeDtypeStruct]) -> Program:
    """Compiles the step for the mesh's devices, which need not exist. Raises `OutOfMemory`."""
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole(layout.mesh))
    try:
        compiled = layout.run.lower(state, key, batch).compile()  # type: ignore[attr-defined]
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(str(error).splitlines()[0]) from None
    stats = compiled.memory_analysis()
    return Program(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        collectives=collectives(compiled.as_text()),
    )


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """{kind: (how many, bytes)} from a compiled program's text. A collective in a loop is counted once.

    The bytes are the input or the output of a collective on one device, whichever is larger. An asynchronous collective
    is split into several instructions with the same channel, and also counts once.
    """
    found: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}  # bytes by name: an operand stands before its use, in the same computation
    for line in program.splitlines():
        instruction = _INSTRUCTION.match(line)
        if not instruction:
            continue
        name, result, call = instruction.groups()
        sizes[name] = _text_size(result)
        operation = _OPERATION.match(call)
        if not operation:
            continue
        kind, start = operation.groups()
        into = sum(sizes.get(operand, 0) for operand in re.findall(r"%([\w.-]+)", call.split("), ")[0]))
        # A "-start" has its operands among its results. An all-reduce has not: its result is as large as they are.
        out = sizes[name] - into if start else sizes[name]
        channel = re.search(r"channel_id=(\d+)", call)
        found.setdefault(kind, {})[channel.group(1) if channel else name] = max(into, out)
    return {kind: (len(found[kind]), sum(found[kind].values())) for kind in KINDS if kind in found}


def largest(peak: Callable[[int], float], memory: float, least: float, first: int = 1) -> int:
    """The largest n with peak(n) <= memory; 0 if there is none. `peak` must increase, and peak(0) = `least`.

    `peak` should be nearly linear. The answer is right even if it is not, because the answer n and the next n are both
    tested; but the search then needs more calls than the usual three or four. `first` is the first n to try.
    """
    known: dict[int, float] = {0: least}
    low, high = 0, None
    n = first
    while least <= memory and (high is None or high > low + 1):
        known[n] = peak(n)
        low, high = (n, high) if known[n] <= memory else (low, n)
        *_, before, last = [0, *sorted(size for size in known if known[size] < float("inf"))]
        slope = (known[last] - known[before]) / max(last - before, 1)
        if slope > 0 and len(known) < 7:
            n = last + int((memory - known[last]) // slope)
        else:
            n = 2 * low if high is None else (low + high) // 2
        n = max(n, low + 1) if high is None else min(max(n, low + 1), high - 1)
    return low


def _remats(jaxpr: Any) -> Iterator[Any]:
    """The blocks of a program that are under remat, at any depth, each as a program."""
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            if equation.primitive.name in ("remat2", "checkpoint"):
                yield inner
            else:
                yield from _remats(inner)


def _inside(jaxpr: Any) -> int:
    """Bytes kept for the gradient of one such block."""
    inputs = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in jaxpr.invars]
    moving = [jnp.issubdtype(x.dtype, jnp.inexact) for x in inputs]

    def fn(some: list[Any], *rest: Any) -> list[Any]:
        some_left, rest_left = iter(some), iter(rest)
        return jax.core.eval_jaxpr(jaxpr, (), *(next(some_left if moves else rest_left) for moves in moving))

    some = [x for x, moves in zip(inputs, moving, strict=True) if moves]
    return saved_bytes(fn, some, *(x for x, moves in zip(inputs, moving, strict=True) if not moves))


def _size(x: Any) -> int:
    return x.size * x.dtype.itemsize


def _text_size(shapes: str) -> int:
    """Bytes of arrays as a program's text writes them, e.g. "(f32[3,2]{1,0}, u8[])"."""
    return sum(
        prod(int(size) for size in sizes.split(",") if size) * int(bits or 8) // 8
        for bits, sizes in _ARRAY.findall(shapes)
    )
