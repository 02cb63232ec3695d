"""Compiles the program of a driver only once when the driver is called outside `jit`.

`jax.lax.scan` outside `jit` is compiled anew for each new body. A driver such as `samplers.sample` makes a new body at
each call: a second of compilation for milliseconds of work, and megabytes that are never given back. `once` traces and
lowers the program, which takes 60 to 100 ms for a small network. It then looks for the program's text among those
compiled before. Arrays that the program closes over, such as a network's parameters, become arguments: new parameters
reuse the compiled program.

One exception: an array that the caller's own `jax.jit` closes over is part of the text, so a new array compiles the
program anew. Pass it to that function as an argument.

Every call traces the program again. This is needed for correctness: a closure may read a variable that has changed
since the last call, so the same function may be another program. `jax.jit` around a driver saves the trace, too.
"""

import collections
import threading
from collections.abc import Callable
from typing import Any

import jax

MOST = 128  # programs kept; the least recently used one is dropped

_programs: collections.OrderedDict[str, Any] = collections.OrderedDict()
_lock = threading.Lock()


def once(program: Callable[..., Any], *arguments: Any) -> Any:
    """program(*arguments), compiled only if no program of the same text was compiled before.

    Inside `jit`, `grad` and `vmap` it is a plain call.

    Args:
        program: a pure function. It may be a new one at each call, and may close over anything.
        arguments: pytrees of arrays. Values that steer Python's control flow belong in the closure.
    """
    leaves = jax.tree.leaves(arguments)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return program(*arguments)
    # A new function, because jax would reuse the trace of an old one.
    traced, shapes = jax.make_jaxpr(lambda *arguments: program(*arguments), return_shape=True)(*arguments)
    leaves = [*traced.consts, *leaves]
    # A tracer that was closed over belongs to a transformation around us. The text does not tell callbacks apart.
    if traced.effects or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return program(*arguments)

    num_consts = len(traced.consts)
    compiled = jax.jit(lambda *leaves: jax.core.eval_jaxpr(traced.jaxpr, leaves[:num_consts], *leaves[num_consts:]))
    text = compiled.lower(*leaves).as_text()
    if "callback" in text:
        return program(*arguments)
    with _lock:
        compiled = _programs.setdefault(text, compiled)
        _programs.move_to_end(text)
        if len(_programs) > MOST:
            _programs.popitem(last=False)
    return jax.tree.unflatten(jax.tree.structure(shapes), compiled(*leaves))
