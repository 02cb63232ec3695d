"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011) with the joint density π(q) N(p; 0, M), H = -log of it.

    refresh   p ← c p + √(1 - c²) M^½ z,  z ~ N(0, I)                     (Horowitz 1991; c = 0 forgets the old p)
    propose   (q', p') = L steps of a palindromic integrator from (q, p)
    accept    with probability min(1, exp(H(q, p) - H(q', p'))); else stay at q and turn the momentum round

The integrator is reversible and keeps volume, so that acceptance makes π(q) N(p; 0, M) stationary. Without it (HVI,
Langevin correctors) the target is kept only as ε → 0, but the chain is smooth in ε, M and all that π depends on.

For the No-U-Turn sampler take blackjax, which knows the same log-density, step size and diagonal inverse mass:

    nuts = blackjax.nuts(log_density, step_size, inverse_mass)
    kernel = Kernel(nuts.init, nuts.step)
    states, infos = run(kernel, key, position, num_steps)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, PRNGKeyArray

from diffjax.errors import InputError
from diffjax.mcmc.integrators import (
    LEAPFROG,
    Coefficients,
    Position,
    Score,
    check_coefficients,
    check_num_steps,
    is_dense,
    trajectory,
    velocity,
)
from diffjax.mcmc.kernel import Kernel

LogDensity = Callable[[Position], Array]

DIVERGENCE = 1000.0  # nats, as in Stan


class HMCState(NamedTuple):
    """Where a chain is.

    position: q, a pytree.
    log_density: (), log π(q) in nats up to a constant; None if the target has only a score.
    score: ∇log π(q), like the position.
    momentum: p at the end of the last step, like the position; None unless it is refreshed partially.
    kept: (), the c of the next refreshment: 0 at the start, where there is no momentum yet. None like `momentum`.
    """

    position: Position
    log_density: Float[Array, ""] | None
    score: Position
    momentum: Position | None
    kept: Float[Array, ""] | None


class HMCInfo(NamedTuple):
    """What happened in a step. The last three are None if the target has only a score.

    accepted: (), whether the chain moved to the proposal; always True without Metropolis.
    acceptance_probability: (), min(1, exp(-energy_error)), whether or not Metropolis is on.
    energy_error: (), H(q', p') - H(q, p) in nats, +inf if it is not a number.
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
    """The kernel of Hamiltonian Monte Carlo, of one chain; `vmap` makes many.

    Args:
        log_density: position -> log π up to a constant, a scalar in nats. None if `score` is given.
        step_size: ε > 0.
        num_leapfrog: L, the number of integrator steps. L score evaluations (times the integrator's drifts) a step.
        inverse_mass: M⁻¹, best near the covariance of π: a number; the diagonal, a pytree like the position or an array
            that broadcasts against it; or a dense (n, n) matrix, n the size of the whole position.
        metropolis: False takes every proposal.
        persistence: c in [0, 1), the share of the momentum that is kept from step to step.
        coefficients: of the integrator, e.g. MCLACHLAN.
        score: position -> ∇log π, for targets whose density nobody knows, as `hmc(None, ..., score=score)`.

    Returns:
        A Kernel of HMCState and HMCInfo.

    Raises:
        InputError: here, if num_leapfrog is no positive integer, step_size not positive, persistence not in [0, 1), the
            coefficients no palindrome, not exactly one of log_density and score given, or Metropolis asked of a score;
            by `init`, if the position is not floating-point, the log-density not scalar or not finite there, the score
            not like the position, or the inverse mass not of the position's shape or not positive definite. What is
            traced is not looked at.
    """
    check_num_steps("num_leapfrog", num_leapfrog)
    check_coefficients(coefficients)
    check_step_size(step_size)
    if _concrete(persistence) and not np.all((np.asarray(persistence) >= 0) & (np.asarray(persistence) < 1)):
        raise InputError(f"persistence must be in [0, 1), not {persistence}")
    if (log_density is None) == (score is None):
        raise InputError("give either log_density or, as score=, its gradient: exactly one of the two")
    if metropolis and log_density is None:
        raise InputError("metropolis=True needs a log_density, of which a score knows no differences: set it to False")

    evaluate = _evaluation(log_density, score)
    partial = isinstance(persistence, Array) or persistence != 0
    # Outside of step, so that no loop over steps repeats it.
    diagonal_root = jax.tree.map(lambda m: 1.0 / jnp.sqrt(m), inverse_mass)
    dense_root = _dense_root(inverse_mass)

    def init(position: Position) -> HMCState:
        position = jax.tree.map(jnp.asarray, position)
        _check_target(log_density, score, position)
        _check_mass(inverse_mass, position)
        value, gradient = evaluate(position)
        if value is not None and _concrete(value) and not np.isfinite(value):
            raise InputError(f"log_density is {value} at the start: begin where it is finite")
        if not partial:
            return HMCState(position, value, gradient, None, None)
        return HMCState(position, value, gradient, jax.tree.map(jnp.zeros_like, position), jnp.zeros(()))

    def draw(key: PRNGKeyArray, position: Position) -> Position:
        flat, unravel = ravel_pytree(position)
        noise = unravel(jax.random.normal(key, flat.shape, flat.dtype))
        return velocity(dense_root if is_dense(inverse_mass, position) else diagonal_root, noise)

    def kinetic(momentum: Position) -> Array:
        return 0.5 * jnp.dot(ravel_pytree(velocity(inverse_mass, momentum))[0], ravel_pytree(momentum)[0])

    def step(key: PRNGKeyArray, state: HMCState) -> tuple[HMCState, HMCInfo]:
        momentum_key, accept_key = jax.random.split(key)
        start = draw(momentum_key, state.position)
        if state.kept is not None:
            c, renewed = state.kept, jnp.sqrt(1.0 - state.kept**2)
            start = jax.tree.map(lambda p, fresh: c * p + renewed * fresh, state.momentum, start)

        current: tuple[Any, Position] = (state.log_density, state.score)
        position, end, (value, gradient) = trajectory(
            coefficients, evaluate, state.position, start, current, step_size, num_leapfrog, inverse_mass
        )
        kept = jnp.asarray(persistence, float) if partial else None
        proposal = HMCState(position, value, gradient, end if partial else None, kept)
        if value is None:
            return proposal, HMCInfo(jnp.ones((), bool), None, None, None)

        error = (kinetic(end) - value) - (kinetic(start) - current[0])
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


def check_step_size(step_size: ArrayLike) -> None:
    if _concrete(step_size) and not np.all(np.asarray(step_size) > 0):
        raise InputError(f"step_size must be positive, not {step_size}")


def _evaluation(log_density: LogDensity | None, score: Score | None) -> Callable[[Position], tuple[Any, Position]]:
    """position -> (log π or None, ∇log π)."""
    if log_density is not None:
        return jax.value_and_grad(log_density)
    assert score is not None
    return lambda position: (None, score(position))


def _dense_root(inverse_mass: Any) -> Array | None:
    """M^½ = L⁻ᵀ where L Lᵀ = M⁻¹; None if this cannot be a dense mass."""
    if not isinstance(inverse_mass, Array | np.ndarray) or inverse_mass.ndim != 2 or len(set(inverse_mass.shape)) != 1:
        return None
    lower = jnp.linalg.cholesky(inverse_mass)
    return jax.scipy.linalg.solve_triangular(lower, jnp.identity(lower.shape[0], lower.dtype), lower=True, trans=1)


def _check_target(log_density: LogDensity | None, score: Score | None, position: Position) -> None:
    for leaf in jax.tree.leaves(position):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(f"position must be floating-point, not {leaf.dtype}: a gradient needs real numbers")
    if log_density is not None:
        value = jax.eval_shape(log_density, position)
        if jnp.shape(value) != ():
            raise InputError(f"log_density must be a scalar, not of shape {value.shape}: chains are made by vmap")
    if score is not None:
        slope = jax.eval_shape(score, position)
        if jax.tree.map(jnp.shape, slope) != jax.tree.map(jnp.shape, position):
            raise InputError(
                f"score must be like the position, of shape {jax.tree.map(jnp.shape, position)}, "
                f"not {jax.tree.map(jnp.shape, slope)}"
            )


def _check_mass(inverse_mass: Any, position: Position) -> None:
    if is_dense(inverse_mass, position):
        if _concrete(inverse_mass) and not _positive_definite(np.asarray(inverse_mass)):
            raise InputError("inverse_mass must be symmetric and positive definite: this matrix is not")
        return
    one = jax.tree_util.all_leaves([inverse_mass])
    diagonal = jax.tree.map(lambda _: inverse_mass, position) if one else inverse_mass
    leaves, like = jax.tree.leaves(diagonal), cast(Any, jax.tree.structure(position))
    if like != jax.tree.structure(diagonal) or not all(map(_broadcasts, leaves, jax.tree.leaves(position))):
        raise InputError(
            f"inverse_mass must be a number, a diagonal like the position or a matrix over all of it, not of shape "
            f"{jax.tree.map(jnp.shape, inverse_mass)} for a position of shape {jax.tree.map(jnp.shape, position)}"
        )
    if _concrete(diagonal) and not all(np.all(np.asarray(leaf) > 0) for leaf in leaves):
        raise InputError("inverse_mass must be positive definite: its diagonal has an entry that is not positive")


def _broadcasts(small: ArrayLike, large: Array) -> bool:
    try:
        return np.broadcast_shapes(np.shape(small), large.shape) == large.shape
    except ValueError:
        return False


def _positive_definite(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return np.allclose(matrix, matrix.T, rtol=1e-4, atol=0)


def _concrete(tree: Any) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
