"""The probability flow: an ordinary differential equation with the marginals of the diffusion (Song et al. 2021, 4.3).

    dx/dt = f(x, t) - ½ g(t)² ∇log p_t(x)          `equations.velocity`

diffrax solves it with adaptive steps. It carries data to latents that are distributed as the prior, and latents to
data. Both ways are deterministic, and inverse to each other up to the tolerance. The formulas are Dormand and Prince's,
as in the papers' RK45, so that a tolerance means what it means there; Tsitouras' are as good at equal cost. A discrete
chain is followed in √L instead of t, L the integrated rate: the rate jumps at every time of the chain's grid, over
which a solver in t stumbles, and in √L the flow is smooth. Few fixed steps are `samplers.heun`'s business.

What a batch shares is the steps, so that the network sees whole batches. A step is accepted if it is accurate for every
example:

    max over examples of rms_i(error_i / (atol + rtol |x_i|)) < 1

(A mean over the batch would hide a bad example behind many good ones.) A stiff example therefore makes the steps short
for its whole batch: its neighbours become more accurate and cost as much as it does, and if it needs more than
`max_steps`, none arrives. An example that is not finite, or whose prediction is not, stops there and becomes NaN. It
has no part in the error control: the others go on as if it were not in the batch.

Outside `jit` every call traces the program anew, and compiles it once (`eager.once`); with `save` it compiles anew.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes, eager
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.schedules import VE, Discrete, Schedule
from diffjax.sde.equations import sample_from, velocity

MAX_STEPS = 1000


class Transport(NamedTuple):
    """Where the flow has carried a batch.

    x: (batch, *event), at the end.
    saved: (num_times, batch, *event), at the times asked for; None without any.
    num_evaluations: (), calls of the network, each on the whole batch.
    """

    x: Float[Array, "batch *event"]
    saved: Float[Array, "num_times batch *event"] | None
    num_evaluations: Array


def transport(
    process: Gaussian,
    predict: Predict,
    x: Float[Array, "batch *event"],
    start: ArrayLike,
    end: ArrayLike,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
    save: Float[Array, " num_times"] | None = None,
) -> Transport:
    """Carries x from time `start` to time `end`, forwards or backwards.

    Args:
        start, end: in (0, 1]; of `ve`, which has noise left at 0, in [0, 1].
        rtol, atol: of one step, for every example. In float32 less than about 1e-6 is lost in rounding.
        max_steps: accepted and rejected ones.
        save: times between `start` and `end`, in that order, at which to keep x: read off each step's interpolant.

    Returns:
        The batch in its own type, 16-bit types as float32. NaN for an example that is not finite or whose prediction is
        not.

    Raises:
        InputError: on times out of range or order, on tolerances that are not positive and finite, and if max_steps do
            not reach the end. Under `jit`, where nothing can be raised, the result is NaN then.
    """
    check_interval(process, start, end)
    if save is not None:
        _check_save(save, start, end)
    field = velocity(process, predict)
    x, saved, num_evaluations = solve(
        process.schedule, lambda t, x: field(x, t), dtypes.as_float(x), start, end, rtol, atol, max_steps, save
    )
    return Transport(x, saved, num_evaluations)


def encode(
    process: Gaussian,
    predict: Predict,
    x0: Float[Array, "batch *event"],
    start: ArrayLike | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, "batch *event"]:
    """Data -> latents at time 1, distributed as `process.prior` as far as the data is distributed as the model.

    Args:
        start: the time of the data; None is `sample_from`, or of a discrete chain its first time if that is later.
            `decode` to the same time inverts this.

    Raises:
        InputError: as `transport`.
    """
    start = earliest(process.schedule, sample_from(process.schedule)) if start is None else start
    return transport(process, predict, x0, start, 1.0, rtol, atol, max_steps).x


def decode(
    process: Gaussian,
    predict: Predict,
    latents: Float[Array, "batch *event"],
    end: ArrayLike | None = None,
    denoise: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Float[Array, "batch *event"]:
    """Latents at time 1 -> data; of latents drawn from `process.prior`, samples.

    Args:
        end: where to stop; None as in `encode`.
        denoise: replace what is reached by the x_0 predicted from it, which is free of the noise left at `end`, and
            no inverse of `encode` any more.

    Raises:
        InputError: as `transport`.
    """
    end = earliest(process.schedule, sample_from(process.schedule)) if end is None else end
    x = transport(process, predict, latents, 1.0, end, rtol, atol, max_steps).x
    if not denoise:
        return x

    def estimate(x: Array, end: Array) -> Array:
        t = jnp.broadcast_to(end, x.shape[:1])
        return convert(predict(x, t), "x0", process, x, t).astype(x.dtype)

    return eager.once(estimate, x, jnp.asarray(end, x.dtype))


def interpolate_latents(
    a: Float[Array, " *event"], b: Float[Array, " *event"], weights: Float[Array, " num"]
) -> Float[Array, "num *event"]:
    """From a (weight 0) to b (weight 1) along the great circle; a mean of two latents would be too short to be one.

        [sin((1 - w) θ) a + sin(w θ) b] / sin θ,   θ the angle between a and b     (Song et al. 2021b, DDIM, eq. 67)

    Where a and b point the same way this is (1 - w) a + w b; where they point opposite ways it is of no use.
    """
    dtype = dtypes.floating(a, b)
    a, b, w = (jnp.asarray(x, dtype) for x in (a, b, weights))
    w = w.reshape(-1, *(1,) * a.ndim)
    # Twice the arctangent of half-chords, which unlike the arccosine keeps its digits where the angle is small.
    u, v = a / jnp.linalg.norm(a.ravel()), b / jnp.linalg.norm(b.ravel())
    angle = 2.0 * jnp.arctan2(jnp.linalg.norm((u - v).ravel()), jnp.linalg.norm((u + v).ravel()))
    # sin(w θ)/sin θ as a quotient of sinc's: w at θ = 0.
    share = w * jnp.sinc(w * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)
    rest = (1 - w) * jnp.sinc((1 - w) * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)
    return rest * a + share * b


def solve(
    schedule: Schedule,
    field: Callable[[Array, Any], Any],
    state: Any,
    start: ArrayLike,
    end: ArrayLike,
    rtol: float,
    atol: float,
    max_steps: int,
    save: Array | None = None,
) -> tuple[Any, Any, Array]:
    """d state/dt = field(t, state), the state a pytree of arrays (batch, ...): the last state, the saved, the calls.

    Raises:
        InputError: on bad tolerances or max_steps, and if max_steps do not reach the end, see `transport`.
    """
    import diffrax  # here, so that `import diffjax` stays light

    check_num_steps("max_steps", max_steps)
    _check_tolerances(rtol, atol)
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

    def run(
        state: Any, ends: list[Array], saves: Array | None, tolerances: list[Array]
    ) -> tuple[Any, Any, Array, Array]:
        sound = _finite(state)
        y = _where(sound, state, 0.0), jnp.where(sound, 0.0, jnp.ones(sound.shape, dtype))
        # What the field closes over, as a network's parameters, becomes an argument. diffrax calls jit, within which it
        # would be part of the program, and other parameters another program.
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
            saveat=diffrax.SaveAt(subs=[last] if saves is None else [last, diffrax.SubSaveAt(ts=saves)]),
            stepsize_controller=controller(*tolerances, norm=lambda error: _worst(error[0])),
            max_steps=int(max_steps),
            throw=False,
        )
        arrived = solution.result == diffrax.RESULTS.successful
        # Mapped over the times at which it was kept.
        kept = [jax.vmap(lambda x, broken: _where(arrived & (broken == 0), x, jnp.nan))(*ys) for ys in solution.ys]
        # Seven stages, but the last is the next step's first.
        num_evaluations = 6 * solution.stats["num_steps"] + 1
        return jax.tree.map(lambda leaf: leaf[0], kept[0]), None if saves is None else kept[1], num_evaluations, arrived

    *result, arrived = eager.once(run, state, ends, saves, tolerances)
    if not isinstance(arrived, jax.core.Tracer) and not arrived:
        raise InputError(
            f"max_steps={max_steps} did not bring the flow from {start} to {end}: raise it, or rtol and atol"
        )
    return tuple(result)


@functools.cache
def _dopri5() -> tuple[Any, Any]:
    """diffrax's solver and its controller, but for two details.

    The interpolant's product is in full precision, which diffrax leaves to the accelerator. The first step is told to
    the controller alone: diffrax checks the sign of `dt0` by a callback from the device, and `eager` compiles a program
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


def _clock(schedule: Schedule) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The variable that the solver steps in as a function of time, and its inverse."""
    if not isinstance(schedule, Discrete):
        return lambda t: t, lambda u: u
    return (
        lambda t: jnp.sqrt(schedule.integrated_rate(t)).astype(t.dtype),
        lambda u: jnp.interp(u * u, schedule.table.astype(u.dtype), schedule.times.astype(u.dtype)),
    )


def earliest(schedule: Schedule, t: float) -> float:
    """t, or of a discrete chain its first time if that is later: a network has seen nothing before."""
    return max(t, 1.0 / schedule.num_steps) if isinstance(schedule, Discrete) else t


def check_interval(process: Gaussian, start: ArrayLike, end: ArrayLike) -> None:
    """Raises InputError unless `start` and `end`, where they are concrete, are two different times of the equation."""
    noisy = isinstance(process.schedule, VE)
    for name, t in (("start", start), ("end", end)):
        if jnp.shape(t) != ():
            raise InputError(f"{name} must be one time for the whole batch, not of shape {jnp.shape(t)}")
        value = _known(t)
        if value is not None and not (0 < value <= 1 or (noisy and value == 0)):
            raise InputError(f"{name}={value} must be a time in (0, 1], or 0 if the schedule is ve")
    if _known(start) is not None and _known(start) == _known(end):
        raise InputError(f"start and end are the same time, {start}: give the flow somewhere to go")


def _check_save(save: Array, start: ArrayLike, end: ArrayLike) -> None:
    if jnp.ndim(save) != 1 or jnp.size(save) == 0:
        raise InputError(f"save must be a vector of times, not of shape {jnp.shape(save)}")
    path = [_known(t) for t in (start, save, end)]
    if any(part is None for part in path):
        return
    steps = np.diff(np.concatenate([np.ravel(np.float32(part)) for part in path]))
    if not ((steps >= 0).all() or (steps <= 0).all()):
        raise InputError(f"save must lead from start={start} to end={end} without turning back, not be {path[1]}")


def _known(t: ArrayLike) -> Any:
    """Its value, or None within `jit`. By numpy, for jnp would trace the comparison of even concrete times there."""
    return None if isinstance(t, jax.core.Tracer) else np.asarray(t)


def _check_tolerances(rtol: ArrayLike, atol: ArrayLike) -> None:
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        value = _known(tolerance)
        if value is not None and not (value.shape == () and 0 < value < np.inf):
            raise InputError(f"{name} must be a positive finite number, not {tolerance}")


def _finite(state: Any) -> Array:
    """(batch,): whether all that the state holds of an example is finite."""
    return jnp.stack([jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1) for leaf in jax.tree.leaves(state)]).all(0)


def _where(sound: Array, state: Any, other: float) -> Any:
    """The state of the examples that are sound, `other` in place of the rest."""
    return jax.tree.map(lambda leaf: jnp.where(sound.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, other), state)


def _worst(scaled_error: Any) -> Array:
    """The largest over examples of the root of the mean square, of all that the state holds of an example."""
    parts = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(scaled_error)]
    return jnp.sqrt(jnp.max(jnp.mean(jnp.concatenate(parts, axis=1) ** 2, axis=1)))
