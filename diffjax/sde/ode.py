"""One ordinary differential equation for a batch: diffrax's adaptive steps, with an error control for each example.

The method is Dormand and Prince's, as in the papers' RK45, so a tolerance has the same meaning. Tsitouras' method is as
good at equal cost. The rate of a discrete chain jumps at every time of its grid, which disturbs a solver in t. The
solver therefore steps in √L instead of t, where the flow is smooth; L is the integrated rate. Where L is infinite at
the end, it steps in the angle arctan(sigma/alpha), and for `schedules.edm` in log t.

The examples of a batch share the steps, so the network sees whole batches. A step is accepted if it is accurate for
every example:

    max over examples of rms_i(error_i / (atol + rtol |x_i|)) < 1

(A mean over the batch would hide a bad example behind many good ones.) A stiff example therefore makes the steps short
for its whole batch. Its neighbours become more accurate and cost as much as it does. If it needs more than `max_steps`,
none of them arrives. An example that is not finite, or whose prediction is not finite, stops there and becomes NaN. The
error control ignores it: the others go on as if it were not in the batch.

Gradients go back by one of two adjoints:

    checkpoint  through the steps themselves, so exact for what was computed; memory grows as the root of max_steps
    backsolve   by the adjoint's own equation, solved from the end to the start together with that of the state
                (Chen et al. 2018, algorithm 1); memory of one step, and an error of the tolerance's size. It controls
                the errors of state and adjoint, but not those of the parameters' gradient: nothing depends on that
                integral (Kidger et al. 2021). atol applies to the adjoint of each example: minimise a sum where a
                mean over many examples makes adjoints as small as atol
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import dtypes, eager, registry
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.schedules import EDM, Discrete, Schedule, no_signal_at_end

MAX_STEPS = 1000

Adjoint = Literal["checkpoint", "backsolve"]


def solve(
    schedule: Schedule | None,
    field: Callable[[Array, Any], Any],
    state: Any,
    start: ArrayLike,
    end: ArrayLike,
    rtol: float,
    atol: float,
    max_steps: int,
    save: Array | None = None,
    adjoint: Adjoint = "checkpoint",
) -> tuple[Any, Any, Array]:
    """Solves d state/dt = field(t, state), with the state a pytree of arrays (batch, ...).

    Args:
        schedule: it determines the variable in which the solver steps; None is time itself.
        save: times at which to keep the state, only with the adjoint "checkpoint".

    Returns:
        The last state, the saved states, and the number of evaluations of the field.

    Raises:
        InputError: on bad tolerances or max_steps, an unknown adjoint, and as `flow.transport` if steps run out.
    """
    import diffrax  # here, so that `import diffjax` stays light

    check_num_steps("max_steps", max_steps)
    check_tolerances(rtol, atol)
    registry.choose("adjoint", adjoint, get_args(Adjoint))
    dtype = dtypes.floating(state)
    clock, time = _clock(schedule)
    ends = [clock(jnp.asarray(t, dtype)) for t in (start, end)]
    saves = None if save is None else clock(jnp.asarray(save, dtype))
    tolerances = [jnp.asarray(tolerance, dtype) for tolerance in (rtol, atol)]

    def slope(u: Any, y: tuple[Any, Array]) -> tuple[Any, Array]:
        x, broken = y
        t = time(u)
        _, rate = jax.jvp(clock, (t,), (jnp.ones_like(t),))
        v = jax.tree.map(lambda leaf: leaf / rate, field(t, x))
        sound = _finite(v) & (broken == 0)
        return _where(sound, v, 0.0), jnp.where(sound, jnp.zeros_like(broken), 1.0)

    def run(state: Any, ends: list[Array], saves: Array | None, tolerances: list[Array]) -> tuple[Any, ...]:
        sound = _finite(state)
        y = _where(sound, state, 0.0), jnp.where(sound, 0.0, jnp.ones(sound.shape, dtype))
        # Arrays that the field closes over, as a network's parameters, become arguments. diffrax calls jit, where they
        # would be part of the program, and new parameters would give a new program.
        traced, shapes = jax.make_jaxpr(slope, return_shape=True)(ends[0], y)

        def traced_slope(u: Any, y: Any, consts: Any) -> Any:
            leaves = jax.core.eval_jaxpr(traced.jaxpr, consts, u, *jax.tree.leaves(y))
            return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

        solver, controller = _dopri5()
        last = diffrax.SubSaveAt(t1=True)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(traced_slope),
            solver(),
            *ends,
            None,  # the controller's choice
            y,
            traced.consts,
            saveat=diffrax.SaveAt(subs=last if saves is None else [last, diffrax.SubSaveAt(ts=saves)]),
            stepsize_controller=controller(*tolerances, norm=lambda error: _worst(error[0])),
            max_steps=int(max_steps),
            adjoint=_adjoint(adjoint, tolerances),
            throw=False,
        )
        arrived = solution.result == diffrax.RESULTS.successful
        every = [solution.ys] if saves is None else solution.ys
        # Mapped over the times at which it was kept.
        kept = [jax.vmap(lambda x, broken: _where(arrived & (broken == 0), x, jnp.nan))(*ys) for ys in every]
        # Seven stages, but the last is the next step's first.
        num_evaluations = 6 * solution.stats["num_steps"] + 1
        return jax.tree.map(lambda leaf: leaf[0], kept[0]), None if saves is None else kept[1], num_evaluations, arrived

    *result, arrived = eager.once(run, state, ends, saves, tolerances)
    if not isinstance(arrived, jax.core.Tracer) and not arrived:
        raise InputError(
            f"max_steps={max_steps} did not bring the flow from {start} to {end}: raise it, or rtol and atol"
        )
    return tuple(result)


def _adjoint(name: Adjoint, tolerances: list[Array]) -> Any:
    import diffrax

    if name == "checkpoint":
        return diffrax.RecursiveCheckpointAdjoint()
    _, controller = _dopri5()
    return diffrax.BacksolveAdjoint(stepsize_controller=controller(*tolerances, norm=_worst_of_adjoint))


@functools.cache
def _dopri5() -> tuple[Any, Any]:
    """diffrax's solver and its controller, with two changes.

    The interpolant's product is in full precision; diffrax leaves its precision to the accelerator. Only the controller
    gets the first step: diffrax checks the sign of `dt0` by a callback from the device, and `eager` compiles a program
    with callbacks anew at each call.
    """
    import diffrax

    interpolation: Any = diffrax.Dopri5.interpolation_cls

    class Interpolation(interpolation):
        def __init__(self, **step):
            with jax.default_matmul_precision("highest"):
                super().__init__(**step)

    class Solver(diffrax.Dopri5):
        interpolation_cls = Interpolation

    class Controller(diffrax.PIDController):
        def init(self, terms, t0, t1, y0, dt0, *rest):
            # A guess: less costs an easy flow a step or two, more costs a hard one rejections.
            return super().init(terms, t0, t1, y0, 1e-3 * (t1 - t0), *rest)

    return Solver, Controller


def _clock(schedule: Schedule | None) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The variable that the solver steps in as a function of time, and its inverse."""
    if isinstance(schedule, EDM):
        return jnp.log, jnp.exp
    if not isinstance(schedule, Discrete):
        return lambda t: t, lambda u: u
    if no_signal_at_end(schedule):
        return lambda t: jnp.arctan2(schedule.sigma(t), schedule.alpha(t)).astype(t.dtype), partial(_time_of, schedule)
    return (
        lambda t: jnp.sqrt(schedule.integrated_rate(t)).astype(t.dtype),
        lambda u: jnp.interp(u * u, schedule.table.astype(u.dtype), schedule.times.astype(u.dtype)),
    )


def _time_of(chain: Discrete, angle: Array) -> Array:
    """The time at which arctan(sigma/alpha) is `angle`, of a chain whose alpha falls linearly to 0 in its last step."""
    table, times = (a[:-1].astype(angle.dtype) for a in (chain.table, chain.times))
    rate = -jnp.log1p(-(jnp.sin(angle) ** 2))
    last = 1.0 - jnp.cos(angle) * jnp.exp(0.5 * table[-1]) / chain.num_steps
    return jnp.where(rate < table[-1], jnp.interp(rate, table, times), jnp.minimum(last, 1.0))


def known(t: ArrayLike) -> Any:
    """The value of t, or None if it is traced. By numpy, because jnp would trace comparisons even of concrete times."""
    return None if isinstance(t, jax.core.Tracer) else np.asarray(t)


def check_tolerances(rtol: ArrayLike, atol: ArrayLike) -> None:
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        value = known(tolerance)
        if value is not None and not (value.shape == () and 0 < value < np.inf):
            raise InputError(f"{name} must be a positive finite number, not {tolerance}")


def _finite(state: Any) -> Array:
    """(batch,): whether all entries of an example are finite."""
    return jnp.stack([jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1) for leaf in jax.tree.leaves(state)]).all(0)


def _where(sound: Array, state: Any, other: float) -> Any:
    """The state of the examples that are sound, `other` in place of the rest."""
    return jax.tree.map(lambda leaf: jnp.where(sound.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, other), state)


def _worst(scaled_error: Any) -> Array:
    """The root mean square over all entries of an example, for the example where it is largest."""
    parts = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(scaled_error)]
    return jnp.sqrt(jnp.max(jnp.mean(jnp.concatenate(parts, axis=1) ** 2, axis=1)))


def _worst_of_adjoint(scaled_error: Any) -> Array:
    """The same in the backward pass, for state and adjoint. It ignores the rest, the gradient of the parameters."""
    (state, _), (adjoint, _), *_ = scaled_error
    return jnp.maximum(_worst(state), _worst(adjoint))
