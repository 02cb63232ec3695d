"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011) with the joint density π(q) N(p; 0, M), H = -log of it.

    refresh   p ← c p + √(1 - c²) M^½ z,  z ~ N(0, I)                     (Horowitz 1991; c = 0 forgets the old p)
    propose   (q', p') = L steps of a palindromic integrator from (q, p)
    accept    with probability min(1, exp(H(q, p) - H(q', p'))); otherwise stay at q and reverse the momentum

The integrator is reversible and preserves volume. So the acceptance step makes π(q) N(p; 0, M) stationary. Without it
(HVI, Langevin correctors) the target is invariant only as ε → 0, but the chain is smooth in ε, M and the parameters of
π.

For the No-U-Turn sampler use blackjax, with the same log-density, step size and diagonal inverse mass:

    nuts = blackjax.nuts(log_density, step_size, inverse_mass)
    kernel = Kernel(nuts.init, nuts.step)
    states, infos = run(kernel, key, position, num_steps)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, PRNGKeyArray

from diffjax import eager
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.mcmc.integrators import (
    LEAPFROG,
    Coefficients,
    Position,
    Score,
    check_coefficients,
    check_floating,
    check_mass,
    check_num_steps,
    check_step_size,
    is_concrete,
    is_dense,
    promoted,
    ravel,
    trajectory,
    typed,
    velocity,
)
from diffjax.mcmc.kernel import Kernel

LogDensity = Callable[[Position], Array]

DIVERGENCE = 1000.0  # nats, as in Stan


class HMCState(NamedTuple):
    """The state of a chain.

    position: q, a pytree. 16-bit leaves become float32. All others keep their type, and the fields below have it, too.
    log_density: (), log π(q) in nats up to a constant. None if the target has only a score.
    score: ∇log π(q), like the position.
    momentum: p at the end of the last step, like the position. None unless it is refreshed partially.
    kept: (), the c of the next refreshment. It is 0 at the start, before there is a momentum. None if `momentum` is.
    """

    position: Position
    log_density: Float[Array, ""] | None
    score: Position
    momentum: Position | None
    kept: Float[Array, ""] | None


class HMCInfo(NamedTuple):
    """What happened in a step. The last three are None if the target has only a score.

    accepted: (), whether the chain moved to the proposal. Always True without Metropolis.
    acceptance_probability: (), min(1, exp(-energy_error)), whether or not Metropolis is on.
    energy_error: (), H(q', p') - H(q, p) in nats; +inf in place of NaN.
    divergent: (), whether the energy error exceeds 1000 nats.
    """

    accepted: Bool[Array, ""]
    acceptance_probability: Float[Array, ""] | None
    energy_error: Float[Array, ""] | None
    divergent: Bool[Array, ""] | None


def hmc(
    log_density: LogDensity | None,
    step_size: ArrayLike,
    num_leapfrog: int,
    inverse_mass: Any = 1.0,
    metropolis: bool = True,
    persistence: ArrayLike = 0.0,
    coefficients: Coefficients = LEAPFROG,
    score: Score | None = None,
) -> Kernel:
    """The kernel of Hamiltonian Monte Carlo, for one chain. `vmap` makes many.

    Args:
        log_density: position -> log π up to a constant, a scalar in nats. None if `score` is given.
        step_size: ε > 0.
        num_leapfrog: L, the number of integrator steps. A step costs L score evaluations, times the integrator's
        drifts.
        inverse_mass: M⁻¹, best near the covariance of π. It is a number; or the diagonal, as a pytree like the position
            or an array that broadcasts against it; or a dense (n, n) matrix, where n is the size of the position.
        metropolis: False accepts every proposal.
        persistence: c in [0, 1), the share of the momentum that is kept from step to step.
        coefficients: of the integrator, e.g. MCLACHLAN.
        score: position -> ∇log π, for targets without a known density: `hmc(None, ..., score=score)`.

    Returns:
        A Kernel of HMCState and HMCInfo.

    Raises:
        InputError: if num_leapfrog is no positive integer, step_size is not positive and finite, persistence is no
            number in [0, 1), the coefficients are no palindrome, not exactly one of log_density and score is given, or
            Metropolis is asked of a score. `init` raises it if the position is not floating-point, the log-density is
            not scalar, it or the score is not finite there, the score is not like the position, or the inverse mass
            does not have the position's shape or is not positive definite. Traced values are not checked. If only the
            score is not finite at the start, every step is `divergent`.
    """
    num_leapfrog = check_num_steps("num_leapfrog", num_leapfrog)
    _check_arguments(log_density, step_size, metropolis, persistence, coefficients, score)
    evaluate = _evaluation(log_density, score)
    partial = isinstance(persistence, Array) or persistence != 0
    root = _root(inverse_mass)

    def init(position: Position) -> HMCState:
        check_floating(position)
        position = promoted(position)
        _check_target(log_density, score, position)
        check_mass(inverse_mass, position, batched=log_density is None)
        _check_positive(inverse_mass, position)
        value, gradient = eager.once(evaluate, position)
        _check_start(value, gradient)
        if not partial:
            return HMCState(position, value, gradient, None, None)
        none_yet = jnp.zeros((), floating(position))
        return HMCState(position, value, gradient, jax.tree.map(jnp.zeros_like, position), none_yet)

    def step(key: PRNGKeyArray, state: HMCState) -> tuple[HMCState, HMCInfo]:
        return eager.once(move, key, state)

    def move(key: PRNGKeyArray, state: HMCState) -> tuple[HMCState, HMCInfo]:
        momentum_key, accept_key = jax.random.split(key)
        start = _refresh(momentum_key, state, root, inverse_mass)
        current: tuple[Any, Position] = (state.log_density, state.score)
        position, end, (value, gradient) = trajectory(
            coefficients, evaluate, state.position, start, current, step_size, num_leapfrog, inverse_mass
        )
        kept = jnp.asarray(persistence, floating(position)) if partial else None
        proposal = HMCState(position, value, gradient, end if partial else None, kept)
        if value is None:
            return proposal, HMCInfo(jnp.ones((), bool), None, None, None)

        error = (_kinetic(inverse_mass, end) - value) - (_kinetic(inverse_mass, start) - current[0])
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        probability = jnp.exp(jnp.minimum(-error, 0.0))
        accepted = jax.random.bernoulli(accept_key, probability) if metropolis else jnp.ones((), bool)
        info = HMCInfo(accepted, probability, error, error > DIVERGENCE)
        if not metropolis:
            return proposal, info
        back = jax.tree.map(jnp.negative, start) if partial else None
        stay = state._replace(momentum=back, kept=kept)
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, stay), info

    return Kernel(init, step)


def _root(inverse_mass: Any) -> tuple[Any, Array | None]:
    """M^½, for a diagonal and for a dense M. It is computed once, outside of all loops over steps."""
    return jax.tree.map(lambda m: 1.0 / jnp.sqrt(as_float(m)), inverse_mass), _dense_root(inverse_mass)


def _refresh(key: PRNGKeyArray, state: HMCState, root: tuple[Any, Array | None], inverse_mass: Any) -> Position:
    """c p + √(1 - c²) M^½ z, z ~ N(0, I) (Horowitz 1991)."""
    diagonal_root, dense_root = root
    flat, unravel = ravel(state.position)
    z = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    fresh = velocity(dense_root if is_dense(inverse_mass, state.position) else diagonal_root, z)
    if state.kept is None:
        return fresh
    c, renewed = state.kept, jnp.sqrt(1.0 - state.kept**2)
    return jax.tree.map(lambda p, new: c.astype(p.dtype) * p + renewed.astype(p.dtype) * new, state.momentum, fresh)


def _kinetic(inverse_mass: Any, momentum: Position) -> Array:
    """½ pᵀ M⁻¹ p."""
    return 0.5 * matmul(ravel(velocity(inverse_mass, momentum))[0], ravel(momentum)[0])


def _evaluation(log_density: LogDensity | None, score: Score | None) -> Callable[[Position], tuple[Any, Position]]:
    """position -> (log π or None, ∇log π), in the types of the position."""
    if log_density is not None:

        def evaluate(position: Position) -> tuple[Array, Position]:
            value, slope = jax.value_and_grad(log_density)(position)
            return jnp.asarray(value, floating(position)), slope

        return evaluate
    assert score is not None
    return lambda position: (None, typed(score(position), position))


def _dense_root(inverse_mass: Any) -> Array | None:
    """M^½ = L⁻ᵀ where L Lᵀ = M⁻¹. None if the mass is not dense."""
    if not isinstance(inverse_mass, Array | np.ndarray) or inverse_mass.ndim != 2 or len(set(inverse_mass.shape)) != 1:
        return None
    lower = jnp.linalg.cholesky(as_float(inverse_mass))
    return jax.scipy.linalg.solve_triangular(lower, jnp.identity(lower.shape[0], lower.dtype), lower=True, trans=1)


def _check_arguments(
    log_density: LogDensity | None,
    step_size: ArrayLike,
    metropolis: bool,
    persistence: ArrayLike,
    coefficients: Coefficients,
    score: Score | None,
) -> None:
    check_coefficients(coefficients)
    check_step_size(step_size)
    if jnp.ndim(persistence):
        raise InputError(f"persistence must be a number, not of shape {jnp.shape(persistence)}")
    if is_concrete(persistence) and not np.all((np.asarray(persistence) >= 0) & (np.asarray(persistence) < 1)):
        raise InputError(f"persistence must be in [0, 1), not {persistence}")
    if (log_density is None) == (score is None):
        raise InputError("give either log_density or, as score=, its gradient: exactly one of the two")
    if metropolis and log_density is None:
        raise InputError("metropolis=True needs a log_density, and only a score is given: set metropolis to False")


def _check_target(log_density: LogDensity | None, score: Score | None, position: Position) -> None:
    if log_density is not None:
        value = jax.eval_shape(log_density, position)
        if jnp.shape(value) != ():
            raise InputError(f"log_density must be a scalar, not of shape {value.shape}: use vmap for several chains")
    if score is not None:
        slope = jax.eval_shape(score, position)
        if jax.tree.map(jnp.shape, slope) != jax.tree.map(jnp.shape, position):
            raise InputError(
                f"score must be like the position, of shape {jax.tree.map(jnp.shape, position)}, "
                f"not {jax.tree.map(jnp.shape, slope)}"
            )


def _check_start(value: Array | None, gradient: Position) -> None:
    if value is not None and is_concrete(value) and not np.isfinite(value):
        raise InputError(f"log_density is {value} at the start: begin where it is finite")
    for leaf in jax.tree.leaves(gradient):
        if is_concrete(leaf) and not np.isfinite(leaf).all():
            raise InputError(f"the score at the start is not finite, {leaf}: begin where it is finite")


def _check_positive(inverse_mass: Any, position: Position) -> None:
    if not is_concrete(inverse_mass):
        return
    if is_dense(inverse_mass, position):
        if not _positive_definite(np.asarray(inverse_mass)):
            raise InputError("inverse_mass must be symmetric and positive definite: this matrix is not")
    elif not all(np.all((np.asarray(m) > 0) & np.isfinite(np.asarray(m))) for m in jax.tree.leaves(inverse_mass)):
        raise InputError(
            "inverse_mass must be positive definite: its diagonal has an entry that is not positive and finite"
        )


def _positive_definite(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix.astype(float))
    except np.linalg.LinAlgError:
        return False
    return np.allclose(matrix, matrix.T, rtol=1e-4, atol=0)
