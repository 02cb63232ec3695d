"""Integrators of Hamilton's equations for H(q, p) = -log π(q) + ½ pᵀ M⁻¹ p, by kicks and drifts.

    kick   p ← p + b ε ∇log π(q)
    drift  q ← q + a ε M⁻¹ p

A step is kick b₁, drift a₁, kick b₂, ..., kick b₁, with the coefficients (b₁, a₁, b₂, ..., b₁). Kicks and drifts are
shears, so the Jacobian is 1. A palindrome is reversible: negate the momentum. Its order is even. Only the score ∇log π
is needed. So the same function serves Hamiltonian Monte Carlo, Hamiltonian variational inference and Langevin
correctors. It is differentiable in everything but the number of steps.

    LEAPFROG   (½, 1, ½), order 2 (Duane et al. 1987)
    MCLACHLAN  two stages, order 2 with the smallest error constant (McLachlan 1995; Blanes et al. 2014, eq. 17)
    YOSHIDA    three leapfrogs, order 4 (Yoshida 1990)
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from diffjax import eager
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul

Position = Any  # a pytree of arrays
Score = Callable[[Position], Position]
Coefficients = tuple[float, ...]

_B = 0.1931833275037836
_Y = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
LEAPFROG: Coefficients = (0.5, 1.0, 0.5)
MCLACHLAN: Coefficients = (_B, 0.5, 1.0 - 2.0 * _B, 0.5, _B)
YOSHIDA: Coefficients = (0.5 * _Y, _Y, 0.5 * (1.0 - _Y), 1.0 - 2.0 * _Y, 0.5 * (1.0 - _Y), _Y, 0.5 * _Y)


def leapfrog(
    score: Score,
    position: Position,
    momentum: Position,
    step_size: ArrayLike,
    num_steps: int,
    inverse_mass: Any = 1.0,
) -> tuple[Position, Position]:
    """`num_steps` leapfrog steps from (position, momentum). They take num_steps + 1 evaluations of the score.

    Args:
        score: ∇log π, position -> pytree like it. Positions may have leading batch axes if the score does.
        step_size: ε, a number or an array that broadcasts against every leaf of the position. Negative: backwards.
        inverse_mass: M⁻¹. It is a number; or the diagonal, as a pytree like the position or an array that broadcasts
            against it; or a dense (n, n) matrix, where n is the size of the position. With a dense matrix there are no
            batch axes: `vmap` over the examples.

    Returns:
        The position and the momentum at the end, in the types of the position's leaves. 16-bit leaves become float32.

    Raises:
        InputError: if num_steps is not a positive integer, step_size is 0 or not finite, the position is not
            floating-point, or step_size or inverse_mass do not fit its shape.
    """
    return integrate(LEAPFROG, score, position, momentum, step_size, num_steps, inverse_mass)


def integrate(
    coefficients: Coefficients,
    score: Score,
    position: Position,
    momentum: Position,
    step_size: ArrayLike,
    num_steps: int,
    inverse_mass: Any = 1.0,
) -> tuple[Position, Position]:
    """`leapfrog` with another integrator, e.g. MCLACHLAN. A step takes as many evaluations as it has drifts.

    Raises:
        InputError: as `leapfrog`. Also if the coefficients are no palindrome, or kicks or drifts do not sum to 1.
    """
    if is_concrete(step_size) and not np.all(np.isfinite(np.asarray(step_size)) & (np.asarray(step_size) != 0)):
        raise InputError(f"step_size must be finite and not 0, not {step_size}")
    check_floating(position)
    position = promoted(position)
    check_mass(inverse_mass, position, batched=True)

    def evaluate(q: Position) -> tuple[None, Position]:
        return None, typed(score(q), q)

    def program(position: Position, momentum: Position) -> tuple[Position, Position]:
        return trajectory(
            coefficients, evaluate, position, momentum, evaluate(position), step_size, num_steps, inverse_mass
        )[:2]

    return eager.once(program, position, typed(momentum, position))


def trajectory(
    coefficients: Coefficients,
    evaluate: Callable[[Position], tuple[Any, Position]],
    position: Position,
    momentum: Position,
    current: tuple[Any, Position],
    step_size: ArrayLike,
    num_steps: int,
    inverse_mass: Any,
) -> tuple[Position, Position, tuple[Any, Position]]:
    """`integrate` for callers that have evaluate(position) already. evaluate gives (anything, score).

    The score and the momentum have the types of the position's leaves, and so have the results.

    Args:
        evaluate: position -> (anything, score), as from `jax.value_and_grad`.
        current: evaluate(position) at the start.

    Returns:
        Position, momentum and evaluate(position) at the end.
    """
    check_coefficients(coefficients)
    num_steps = check_num_steps("num_steps", num_steps)
    for leaf in jax.tree.leaves(position):
        if not broadcasts(step_size, leaf):
            raise InputError(
                f"step_size of shape {jnp.shape(step_size)} does not broadcast against a position of shape {leaf.shape}"
            )
    check_mass(inverse_mass, position)
    stages = list(zip(coefficients[1::2], coefficients[2::2], strict=True))

    def kick(b: float, p: Position, score: Position) -> Position:
        return jax.tree.map(lambda p, s: p + b * jnp.asarray(step_size, p.dtype) * s, p, score)

    def step(q: Position, p: Position, score: Position) -> tuple[Position, Position, tuple[Any, Position]]:
        p = kick(coefficients[0], p, score)
        for a, b in stages:
            v = velocity(inverse_mass, p)
            q = jax.tree.map(lambda q, v, a=a: q + a * jnp.asarray(step_size, q.dtype) * v, q, v)
            value, score = evaluate(q)
            p = kick(b, p, score)
        return q, p, (value, score)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        q, p, (_, score) = step(*carry)
        return (q, p, score), None

    # Only the value at the last step is needed. So that step is outside of the loop, and the others do not compute it.
    # This is 1.2 times as fast (experiments/benchmarks/README.md).
    outside = 0 if current[0] is None else 1
    carry, _ = jax.lax.scan(body, (position, momentum, current[1]), None, length=num_steps - outside)
    return step(*carry) if outside else (*carry[:2], (None, carry[2]))


def velocity(inverse_mass: Any, momentum: Position) -> Position:
    """M⁻¹ p, for the three kinds of inverse mass of `leapfrog`."""
    if is_dense(inverse_mass, momentum):
        flat, unravel = ravel(momentum)
        return unravel(matmul(jnp.asarray(inverse_mass, flat.dtype), flat))
    return jax.tree.map(lambda m, p: jnp.asarray(m, p.dtype) * p, _diagonal(inverse_mass, momentum), momentum)


def is_dense(inverse_mass: Any, position: Position) -> bool:
    """Whether the inverse mass is a matrix over the whole position, and not a number or a diagonal."""
    size = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(position))
    return isinstance(inverse_mass, Array | np.ndarray) and inverse_mass.shape == (size, size)


def _diagonal(inverse_mass: Any, position: Position) -> Any:
    """A pytree like the position. A single array is repeated for every leaf."""
    one = jax.tree_util.all_leaves([inverse_mass])
    return jax.tree.map(lambda _: inverse_mass, position) if one else inverse_mass


def promoted(position: Position) -> Position:
    """The leaves as arrays. 16-bit leaves become float32."""
    arrays = jax.tree.map(jnp.asarray, position)
    return jax.tree.map(lambda x: as_float(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, arrays)


def typed(tree: Any, position: Position) -> Any:
    """A pytree like the position, in the types of the position's leaves."""
    return jax.tree.map(lambda leaf, x: jnp.asarray(leaf, x.dtype), tree, position)


def ravel(position: Position) -> tuple[Array, Callable[[Array], Position]]:
    """The position as one vector, and the inverse. Leaves may have several types, also under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return ravel_pytree(position)


def is_concrete(tree: Any) -> bool:
    """Whether there are numbers, none of which is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_whole(num: Any) -> bool:
    """Whether it is an integer of Python or numpy. True and False are not."""
    return isinstance(num, numbers.Integral) and not isinstance(num, bool)


def broadcasts(small: ArrayLike, large: ArrayLike) -> bool:
    try:
        return np.broadcast_shapes(np.shape(small), np.shape(large)) == np.shape(large)
    except ValueError:
        return False


def check_floating(position: Position) -> None:
    for leaf in map(jnp.asarray, jax.tree.leaves(position)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(f"position must be floating-point, not {leaf.dtype}: a gradient needs real numbers")


def check_num_steps(name: str, num_steps: int, least: int = 1) -> int:
    """The integer as a Python int, because numpy's short integers overflow."""
    if not is_whole(num_steps) or num_steps < 1:
        raise InputError(f"{name} must be a positive integer known before compilation, not {num_steps!r}")
    if num_steps < least:
        raise InputError(f"{name} must be at least {least}, not {num_steps}")
    return int(num_steps)


def check_step_size(step_size: ArrayLike) -> None:
    if is_concrete(step_size) and not np.all((np.asarray(step_size) > 0) & np.isfinite(np.asarray(step_size))):
        raise InputError(f"step_size must be positive and finite, not {step_size}")


def check_mass(inverse_mass: Any, position: Position, batched: bool = False) -> None:
    """Checks the shape. If the position may have batch axes, a matrix is not taken for a diagonal."""
    if is_dense(inverse_mass, position):
        return
    shape, like = jax.tree.map(jnp.shape, inverse_mass), jax.tree.map(jnp.shape, position)
    diagonal = _diagonal(inverse_mass, position)
    same = cast(Any, jax.tree.structure(position)) == jax.tree.structure(diagonal)
    if not same or not all(map(broadcasts, jax.tree.leaves(diagonal), jax.tree.leaves(position))):
        raise InputError(
            f"inverse_mass must be a number, a diagonal like the position or a matrix over all of it, not of shape "
            f"{shape} for a position of shape {like}: vmap over the examples of a batch"
        )
    if batched and isinstance(inverse_mass, Array | np.ndarray) and inverse_mass.ndim == 2 and inverse_mass.size > 1:
        rows, columns = inverse_mass.shape
        if rows == columns:
            raise InputError(
                f"inverse_mass of shape {shape} may be a matrix or a diagonal of a position of shape {like}: vmap over "
                f"the examples if it is a matrix, and give (position,) and (inverse_mass,) if it is a diagonal"
            )


def check_coefficients(coefficients: Coefficients) -> None:
    kicks, drifts = coefficients[::2], coefficients[1::2]
    consistent = all(math.isclose(sum(part), 1.0, abs_tol=1e-6) for part in (kicks, drifts))
    palindrome = all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(coefficients, coefficients[::-1], strict=True))
    if len(coefficients) % 2 == 0 or not consistent or not palindrome:
        raise InputError(
            f"coefficients must be a palindrome (kick, drift, ..., kick) whose kicks and drifts each sum to 1, "
            f"like (0.5, 1.0, 0.5), not {coefficients}"
        )
