"""Hamiltonian variational inference (Salimans, Kingma & Welling 2015, algorithm 3).

An iteration draws a momentum, moves by leapfrog, and explains the momentum it ended with:

    v' ~ q(v' | x, z),    (z', v) = leapfrog(z, v'),    factor r(v | x, z') / q(v' | x, z)

The leapfrog has unit Jacobian, so nothing else enters; there is no accept or reject, which would not be differentiable.

    log w = log p(x, z_T) - log q_0(z_0 | x) + Σ_t [log r(v_t | x, z_t) - log q(v'_t | x, z_{t-1})]

It is importance sampling of p(x, z_T) Π_t r over (z_0, v'_1, .., v'_T), with E w = p(x) for any step size, mass and
momentum models: all of them are parameters to be learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import pytrees
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.mcmc.integrators import LEAPFROG, check_num_steps, trajectory
from diffjax.vi.markov_chain import Conditional, Law, LogJoint, at, check_log_joint, sum_events


@pytrees.register
@dataclass(frozen=True)
class LinearNormal:
    """z -> N(z weight + bias, exp(log_variance)), a pytree of its parameters: for momenta, and inverse models."""

    weight: Float[Array, "dim out"]
    bias: Float[Array, " out"]
    log_variance: Float[Array, " out"]

    def __call__(self, x: Any, z: Float[Array, "*batch dim"]) -> Normal:
        del x  # one data set, of which the parameters know
        mean = z @ self.weight + self.bias
        return Normal(mean, jnp.broadcast_to(jnp.exp(self.log_variance), mean.shape))


class Hamiltonian(NamedTuple):
    """The parameters of one iteration; a pytree if its momentum models are, so that `jax.grad` goes through all of it.

    log_step_size: log ε, a number or one per dimension.
    log_inverse_mass: log of the diagonal of M⁻¹, a number or one per dimension.
    momentum: q(v' | x, z), a function like z: `LinearNormal`, or `jax.tree_util.Partial(network, params)`.
    inverse_momentum: r(v | x, z), the same.
    """

    log_step_size: Array
    log_inverse_mass: Array
    momentum: Conditional
    inverse_momentum: Conditional


def linear_hamiltonian(dim: int, step_size: float = 0.1) -> Hamiltonian:
    """Momenta that begin as N(0, I), with means linear in z: enough where z is all there is to know of the data.

    Raises:
        InputError: if step_size is not above 0.
    """
    if not step_size > 0:
        raise InputError(f"step_size must be above 0, not {step_size!r}")

    def standard() -> LinearNormal:
        return LinearNormal(jnp.zeros((dim, dim)), jnp.zeros(dim), jnp.zeros(dim))

    return Hamiltonian(jnp.log(jnp.asarray(step_size, float)), jnp.zeros(dim), standard(), standard())


def hamiltonian(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    params: Hamiltonian | Sequence[Hamiltonian],
    num_leapfrog: int,
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> tuple[Array, Array]:
    """One draw z_T and its log-weight; reparameterised, so differentiable in everything but num_leapfrog.

    Args:
        x: what log_joint and the momentum models take as data, a batch of examples or one; may be None.
        log_joint: (x, z (*batch, *event)) -> log p(x, z), (*batch) in nats; smooth in z.
        initial: q_0(z_0 | x), or x -> q_0.
        params: of one iteration, or a sequence of them; () is no iteration, the plain bound of q_0.
        num_leapfrog: steps in every iteration.
        densities: (initial, momentum models) to take log q_0 and log q(v' | x, z) from, if not those that draw; see
            `markov_chain`.

    Returns:
        z_T (*batch, *event) and log w (*batch) in nats, E w = p(x) and E log w a lower bound on log p(x).

    Raises:
        InputError: if num_leapfrog is no positive integer, log_joint or a log_prob does not give one number per
            example, a momentum is not shaped like z, or densities has not as many momentum models as params.
    """
    iterations = (params,) if isinstance(params, Hamiltonian) else tuple(params)
    first, momenta = densities or (initial, [iteration.momentum for iteration in iterations])
    if len(momenta) != len(iterations):
        raise InputError(
            f"densities has {len(momenta)} momentum models and params {len(iterations)}: give one for each"
        )
    if iterations:
        check_num_steps("num_leapfrog", num_leapfrog)
    keys = jax.random.split(key, len(iterations) + 1)
    z = at(initial, x).sample(keys[0])
    costs = [-at(first, x).log_prob(z)]
    batch = jax.eval_shape(log_joint, x, z).shape
    check_log_joint(batch, z)

    def evaluate(z: Array) -> tuple[None, Array]:
        return None, jax.grad(lambda z: log_joint(x, z).sum())(z)

    current = evaluate(z)  # handed on, so that n iterations of L steps cost n L + 1 evaluations
    for step_key, iteration, density in zip(keys[1:], iterations, momenta, strict=True):
        start = iteration.momentum(x, z).sample(step_key)
        if start.shape != z.shape:
            raise InputError(f"a momentum must have the shape of z, {z.shape}, not {start.shape}")
        costs.append(-density(x, z).log_prob(start))
        step_size, inverse_mass = jnp.exp(iteration.log_step_size), jnp.exp(iteration.log_inverse_mass)
        z, end, current = trajectory(LEAPFROG, evaluate, z, start, current, step_size, num_leapfrog, inverse_mass)
        costs.append(iteration.inverse_momentum(x, z).log_prob(end))
    return z, log_joint(x, z) + sum(sum_events(cost, batch) for cost in costs)


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
