"""Continuous flows: solutions of an ordinary differential equation from t = 0 to t = 1 (Chen et al. 2018, section 4).

    dz/dt = v(z, t),   z(0) = x,   z(1) = y
    log |det ∂y/∂x| = ∫ ∇·v(z, t) dt from 0 to 1       (their theorem 1; the infinitesimal flows of Rezende & Mohamed
                                                        2015, section 3.2, without noise)

The inverse solves the same equation from 1 to 0. Every v with a bounded slope works: its form need not be invertible.
The divergence is exact, with one derivative a dimension, or Hutchinson's estimate with fixed probes during a solve
(FFJORD, Grathwohl et al. 2019). The log-determinants are then random and unbiased. Two costs of v are

    kinetic    ∫ |v|² dt          jacobian   ∫ ‖∂v/∂z‖²_F dt,  by the same directions as the divergence

They are small if paths are straight, and then steps can be long (Finlay et al. 2020, eq. 10, with uᵀ∂v in place of ∂v
u, which has the same mean). Steps are adaptive. Gradients use one of the two adjoints of `sde.ode`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax import dtypes, randomness, registry
from diffjax.errors import InputError
from diffjax.flows.flow import Flow
from diffjax.mcmc.integrators import check_num_steps
from diffjax.sde.divergence import Divergence, Probe, probes, with_divergence
from diffjax.sde.ode import MAX_STEPS, Adjoint, check_tolerances, solve

Velocity = Callable[[Array, Array], Array]  # z (*batch, dim), t () -> dz/dt (*batch, dim)


class Integration(NamedTuple):
    """How the equation is solved.

    rtol, atol: tolerances of one step, for every vector. The log-determinant counts as one more entry.
    max_steps: the most steps, accepted and rejected ones together.
    adjoint: "checkpoint" or "backsolve", see `sde.ode`.
    divergence: "exact" or "hutchinson". None is "exact" up to 16 dimensions.
    num_probes, probe: for "hutchinson": the number of probes of each vector, and "rademacher" or "gaussian".
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = MAX_STEPS
    adjoint: Adjoint = "checkpoint"
    divergence: Divergence | None = None
    num_probes: int = 1
    probe: Probe = "rademacher"

    def check(self) -> "Integration":
        """Checks the fields and returns self.

        Raises:
            InputError: on an unknown choice, or a tolerance or a number that is not positive.
        """
        check_tolerances(self.rtol, self.atol)
        check_num_steps("max_steps", self.max_steps)
        check_num_steps("num_probes", self.num_probes)
        registry.choose("adjoint", self.adjoint, get_args(Adjoint))
        registry.choose("divergence", self.divergence or "exact", get_args(Divergence))
        registry.choose("probe", self.probe, get_args(Probe))
        return self


class Path(NamedTuple):
    """The result of a solve.

    z: (*batch, dim), at the end. log_det: (*batch,), of the map from the start to the end.
    num_evaluations: (), calls of the velocity, each on all vectors.
    costs: kinetic and jacobian, both (*batch,), see above. Empty unless asked for.
    """

    z: Float[Array, "*batch dim"]
    log_det: Float[Array, "*batch"]
    num_evaluations: Array
    costs: tuple[Float[Array, "*batch"], ...] = ()


def continuous(velocity: Velocity, integration: Integration | None = None, key: randomness.Keys | None = None) -> Flow:
    """x -> the solution at time 1 that starts from x at time 0.

    Args:
        velocity: smooth in z. Both adjoints differentiate in everything it closes over.
        integration: None is `Integration()`.
        key: for the probes, one key or one for each vector. Both directions of the flow draw the same probes.

    Raises:
        InputError: from the functions of the flow, as `carry`.
    """

    def move(x: Array, inverse: bool) -> tuple[Array, Array]:
        path = carry(velocity, x, inverse, integration, key)
        return path.z, path.log_det

    return Flow(partial(move, inverse=False), partial(move, inverse=True))


def carry(
    velocity: Velocity,
    x: Float[Array, "*batch dim"],
    inverse: bool = False,
    integration: Integration | None = None,
    key: randomness.Keys | None = None,
    costs: bool = False,
) -> Path:
    """Solves the equation from time 0 to 1, or from 1 to 0 if `inverse`.

    All vectors take the same steps. A vector that is not finite, or whose velocity is not, becomes NaN. The others are
    not affected.

    Args:
        costs: whether to integrate `kinetic` and `jacobian`, too. The error control then includes them.

    Raises:
        InputError: on a velocity of another shape than x, an unknown choice, bad tolerances, probes without a key or
            with another number of keys than vectors, and if max_steps do not reach the end. Under `jit` this last error
            cannot be raised: the result is NaN.
    """
    how = (integration or Integration()).check()
    x = _as_velocity(velocity, x)
    shape = x.shape
    flat = x.reshape(-1, shape[-1])
    if key is not None and randomness.per_example(key) and len(key) != len(flat):
        raise InputError(f"key holds {len(key)} keys for {len(flat)} vectors: give one key, or one for each vector")
    directions = probes(key, flat, how.divergence, how.num_probes, how.probe)
    ends = (1.0, 0.0) if inverse else (0.0, 1.0)

    def field(t: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        def at(z: Array) -> Array:
            return velocity(z.reshape(shape), t).reshape(z.shape).astype(z.dtype)

        v, divergence, square = with_divergence(at, state[0], directions)
        if not costs:
            return v, divergence
        sign = -1.0 if inverse else 1.0  # costs grow in both directions
        return v, divergence, sign * (v**2).sum(1), sign * square

    state = (flat, *[jnp.zeros(len(flat), x.dtype)] * (3 if costs else 1))
    (z, *sums), _, num_evaluations = solve(
        None, field, state, *ends, how.rtol, how.atol, how.max_steps, adjoint=how.adjoint
    )
    log_det, *integrals = (total.reshape(shape[:-1]) for total in sums)
    return Path(z.reshape(shape), log_det, num_evaluations, tuple(integrals))


def _as_velocity(velocity: Velocity, x: Float[Array, "*#batch dim"]) -> Float[Array, "*batch dim"]:
    """x with the batch axes and the type of the velocity's result."""
    x = dtypes.as_float(x)
    like = jax.eval_shape(velocity, x, jnp.zeros((), x.dtype))
    try:
        shape = jnp.broadcast_shapes(x.shape, like.shape)
    except ValueError:
        shape = ()
    if x.ndim < 1 or like.shape != shape or like.shape[-1] != x.shape[-1]:
        raise InputError(f"velocity must give an array of x's shape {x.shape}, not of {like.shape}")
    return jnp.broadcast_to(x, shape).astype(dtypes.floating(x, like))
