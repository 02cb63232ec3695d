"""Hamiltonian variational inference (Salimans, Kingma & Welling 2015, algorithm 3).

An iteration draws a momentum, moves by leapfrog, and scores the momentum at the end with an inverse model r:

    v' ~ q(v' | x, z),    (z', v) = leapfrog(z, v'),    factor r(v | x, z') / q(v' | x, z)

The leapfrog has unit Jacobian, so there is no other factor. There is no accept step, which would not be differentiable.

    log w = log p(x, z_T) - log q_0(z_0 | x) + Σ_t [log r(v_t | x, z_t) - log q(v'_t | x, z_{t-1})]

This is importance sampling of p(x, z_T) Π_t r over (z_0, v'_1, .., v'_T). E w = p(x) holds for every step size, mass
and momentum model. So all of them are parameters to be learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager, pytrees
from diffjax.distributions import Normal
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul
from diffjax.mcmc.integrators import LEAPFROG, check_num_steps, check_step_size, trajectory
from diffjax.vi.markov_chain import Conditional, Law, LogJoint, at, check_log_joint, sum_events


@pytrees.register
@dataclass(frozen=True)
class LinearNormal:
    """z -> N(z weight + bias, exp(log_variance)), a pytree of its parameters. For momenta and inverse models."""

    weight: Float[Array, "dim out"]
    bias: Float[Array, " out"]
    log_variance: Float[Array, " out"]

    def __call__(self, x: Any, z: Float[Array, "*batch dim"]) -> Normal:
        del x  # there is one data set, to which the parameters are fitted
        z = as_float(z)
        weight, bias, log_variance = (jnp.asarray(p, z.dtype) for p in (self.weight, self.bias, self.log_variance))
        mean = matmul(z, weight) + bias
        return Normal(mean, jnp.broadcast_to(jnp.exp(log_variance), mean.shape))


class Hamiltonian(NamedTuple):
    """The parameters of one iteration. It is a pytree if its momentum models are, for `jax.grad`.

    log_step_size: log ε, a number or one per dimension.
    log_inverse_mass: log of the diagonal of M⁻¹, a number or one per dimension.
    momentum: (x, z) -> q(v' | x, z), with draws like z: `LinearNormal`, or `jax.tree_util.Partial(network, params)`.
    inverse_momentum: (x, z) -> r(v | x, z), the same.
    """

    log_step_size: Array
    log_inverse_mass: Array
    momentum: Conditional
    inverse_momentum: Conditional


def linear_hamiltonian(dim: int, step_size: float = 0.1) -> Hamiltonian:
    """Momenta that begin as N(0, I), with means linear in z. This is enough if there is one data set.

    Raises:
        InputError: if dim is not a positive integer, or step_size is not positive and finite.
    """
    dim = check_num_steps("dim", dim)
    check_step_size(step_size)

    def standard() -> LinearNormal:
        return LinearNormal(jnp.zeros((dim, dim)), jnp.zeros(dim), jnp.zeros(dim))

    return Hamiltonian(jnp.log(as_float(step_size)), jnp.zeros(dim), standard(), standard())


def hamiltonian(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    params: Hamiltonian | Sequence[Hamiltonian],
    num_leapfrog: int,
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> tuple[Array, Array]:
    """One draw z_T and its log-weight. Draws are reparameterised: differentiable in everything but num_leapfrog.

    Args:
        x: the data for log_joint and the momentum models, a batch of examples or one. It may be None.
        log_joint: (x, z (*batch, *event)) -> log p(x, z), (*batch) in nats, smooth in z.
        initial: q_0(z_0 | x), or x -> q_0.
        params: of one iteration, or a sequence of them. () is no iteration: the bound of q_0 alone.
        num_leapfrog: steps in every iteration.
        densities: (initial, momentum models) for log q_0 and log q(v' | x, z), if they differ from those that draw. See
            `markov_chain`.

    Returns:
        z_T (*batch, *event) and log w (*batch) in nats. E w = p(x), and E log w is a lower bound on log p(x).

    Raises:
        InputError: if num_leapfrog is no positive integer, log_joint or a log_prob does not give one number per
            example, a log_prob has an axis that its draw does not have, a momentum does not have the shape of z, or
            densities has another number of momentum models than params.
    """
    iterations = (params,) if isinstance(params, Hamiltonian) else tuple(params)
    first, momenta = densities or (initial, [iteration.momentum for iteration in iterations])
    if len(momenta) != len(iterations):
        raise InputError(
            f"densities has {len(momenta)} momentum models and params {len(iterations)}: give one for each"
        )
    if iterations:
        num_leapfrog = check_num_steps("num_leapfrog", num_leapfrog)

    def target(z: Array) -> Array:
        return as_float(log_joint(x, z))

    def evaluate(z: Array) -> tuple[None, Array]:
        return None, jax.grad(lambda z: target(z).sum())(z)

    def program(key: PRNGKeyArray) -> tuple[Array, Array]:
        keys = jax.random.split(key, len(iterations) + 1)
        z = as_float(at(initial, x).sample(keys[0]))
        gains = [(-at(first, x).log_prob(z), z)]
        check_log_joint(jax.eval_shape(target, z).shape, z)
        current = evaluate(z)  # passed on: n iterations of L steps then cost n L + 1 evaluations
        for step_key, iteration, density in zip(keys[1:], iterations, momenta, strict=True):
            start = jnp.asarray(iteration.momentum(x, z).sample(step_key), z.dtype)
            if start.shape != z.shape:
                raise InputError(f"a momentum must have the shape of z, {z.shape}, not {start.shape}")
            gains.append((-density(x, z).log_prob(start), start))
            step_size, inverse_mass = (jnp.exp(as_float(log)) for log in iteration[:2])
            z, end, current = trajectory(LEAPFROG, evaluate, z, start, current, step_size, num_leapfrog, inverse_mass)
            gains.append((iteration.inverse_momentum(x, z).log_prob(end), end))
        total = target(z)
        return z, total + sum(sum_events(*gain, total) for gain in gains)

    return eager.once(program, key)


def hamiltonian_log_weight(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    params: Hamiltonian | Sequence[Hamiltonian],
    num_leapfrog: int,
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> Array:
    """log w of one draw, (*batch) in nats; arguments and errors as in `hamiltonian`."""
    return hamiltonian(key, x, log_joint, initial, params, num_leapfrog, densities)[1]
