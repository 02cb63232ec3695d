"""Integrators of Hamilton's equations for H(q, p) = -log π(q) + ½ pᵀ M⁻¹ p, by kicks and drifts.

    kick   p ← p + b ε ∇log π(q)
    drift  q ← q + a ε M⁻¹ p

A step is kick b₁, drift a₁, kick b₂, ..., kick b₁, given by its coefficients (b₁, a₁, b₂, ..., b₁). Each is a shear, so
the Jacobian is 1; a palindrome is reversed by turning the momentum round, and its order is even. Only the score ∇log π
is needed, so that the same function serves Hamiltonian Monte Carlo, Hamiltonian variational inference and Langevin
correctors, and it is differentiable in everything but the number of steps.

    LEAPFROG   (½, 1, ½), order 2 (Duane et al. 1987)
    MCLACHLAN  two stages, order 2 with the smallest error constant (McLachlan 1995; Blanes et al. 2014, eq. 17)
    YOSHIDA    three leapfrogs, order 4 (Yoshida 1990)
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from diffjax.errors import InputError

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
    """`num_steps` leapfrog steps from (position, momentum); num_steps + 1 evaluations of the score.

    Args:
        score: ∇log π, position -> pytree like it. Positions may carry leading batch axes if the score does.
        step_size: ε, a number or an array that broadcasts against every leaf of the position.
        inverse_mass: M⁻¹: a number; the diagonal, a pytree like the position or an array that broadcasts against it;
            or a dense (n, n) matrix, n the size of the whole position, which then has no batch axes.

    Returns:
        The position and the momentum at the end.

    Raises:
        InputError: if num_steps is no positive integer.
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
    """`leapfrog` with another integrator, e.g. MCLACHLAN; as many evaluations a step as it has drifts.

    Raises:
        InputError: if num_steps is no positive integer, or the coefficients are no palindrome of kicks and drifts that
            each sum to 1.
    """

    def evaluate(q: Position) -> tuple[None, Position]:
        return None, score(q)

    position, momentum, _ = trajectory(
        coefficients, evaluate, position, momentum, evaluate(position), step_size, num_steps, inverse_mass
    )
    return position, momentum


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
    """`integrate` for who knows evaluate(position) already: evaluate gives (anything, score), as value_and_grad does.

    Returns:
        Position, momentum and evaluate(position) at the end.
    """
    check_coefficients(coefficients)
    check_num_steps("num_steps", num_steps)
    stages = list(zip(coefficients[1::2], coefficients[2::2], strict=True))

    def kick(b: float, p: Position, score: Position) -> Position:
        return jax.tree.map(lambda p, s: p + b * step_size * s, p, score)

    def step(q: Position, p: Position, score: Position) -> tuple[Position, Position, tuple[Any, Position]]:
        p = kick(coefficients[0], p, score)
        for a, b in stages:
            q = jax.tree.map(lambda q, v, a=a: q + a * step_size * v, q, velocity(inverse_mass, p))
            value, score = evaluate(q)
            p = kick(b, p, score)
        return q, p, (value, score)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        q, p, (_, score) = step(*carry)
        return (q, p, score), None

    # Only the last step's value is asked for. Where there is one, that step stands outside of the loop, so that the
    # others need not compute it: 1.2 times as fast (experiments/benchmarks/README.md).
    outside = 0 if current[0] is None else 1
    carry, _ = jax.lax.scan(body, (position, momentum, current[1]), None, length=num_steps - outside)
    return step(*carry) if outside else (*carry[:2], (None, carry[2]))


def velocity(inverse_mass: Any, momentum: Position) -> Position:
    """M⁻¹ p, for the three kinds of inverse mass that `leapfrog` takes."""
    if is_dense(inverse_mass, momentum):
        flat, unravel = ravel_pytree(momentum)
        return unravel(inverse_mass @ flat)
    if jax.tree_util.all_leaves([inverse_mass]):
        return jax.tree.map(lambda p: inverse_mass * p, momentum)
    return jax.tree.map(jnp.multiply, inverse_mass, momentum)


def is_dense(inverse_mass: Any, position: Position) -> bool:
    """Whether it is a matrix over the whole position, and not a number or a diagonal."""
    size = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(position))
    return isinstance(inverse_mass, Array | np.ndarray) and inverse_mass.shape == (size, size)


def check_num_steps(name: str, num_steps: int) -> None:
    if not isinstance(num_steps, int) or num_steps < 1:
        raise InputError(f"{name} must be a positive integer known before compilation, not {num_steps!r}")


def check_coefficients(coefficients: Coefficients) -> None:
    kicks, drifts = coefficients[::2], coefficients[1::2]
    consistent = all(math.isclose(sum(part), 1.0, abs_tol=1e-6) for part in (kicks, drifts))
    palindrome = all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(coefficients, coefficients[::-1], strict=True))
    if len(coefficients) % 2 == 0 or not consistent or not palindrome:
        raise InputError(
            f"coefficients must be a palindrome (kick, drift, ..., kick) whose kicks and drifts each sum to 1, "
            f"like (0.5, 1.0, 0.5), not {coefficients}"
        )
