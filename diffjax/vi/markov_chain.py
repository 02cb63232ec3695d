"""Markov chain variational inference (Salimans, Kingma & Welling 2015, algorithm 1).

A chain z_0 ~ q_0(. | x), z_t ~ q_t(. | x, z_{t-1}) ends in z_T; inverse models r_t(z_{t-1} | x, z_t) guess where it
came from. In the space of whole chains this is importance sampling of p(x, z_T) Π_t r_t:

    w = p(x, z_T) Π_t r_t(z_{t-1} | x, z_t) / [q_0(z_0 | x) Π_t q_t(z_t | x, z_{t-1})],    E w = p(x)

so that E log w ≤ log p(x). The paper's sum of log p(x, z_t) r_t / (p(x, z_{t-1}) q_t) is the same after it telescopes.
It falls short of it by KL(q(z_T | x) ‖ p(z_T | x)) + E KL(q(z_0..z_{T-1} | x, z_T) ‖ Π r_t): inverse models that know
where the chain came from cost nothing, and transitions that leave p(z | x) invariant bring the first KL to 0.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax.errors import InputError

LogJoint = Callable[[Any, Array], Array]


class Law(Protocol):
    """All that a chain needs of a Distribution; `log_prob` is elementwise, or of whole events."""

    def sample(self, key: PRNGKeyArray) -> Array: ...
    def log_prob(self, x: Array) -> Array: ...


Conditional = Callable[[Any, Array], Law]


class Coordinate(NamedTuple):
    """The law of z after its `coordinate` alone was drawn anew, from `law`: what a Gibbs step does.

    As a transition, `z` is where the step starts; as an inverse model, where it ended. Only the density of the
    coordinate counts in `log_prob`, because the others are known.
    """

    z: Float[Array, "*batch dim"]
    coordinate: int
    law: Law

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch dim"]:
        return self.z.at[..., self.coordinate].set(self.law.sample(key))

    def log_prob(self, z: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        return self.law.log_prob(z[..., self.coordinate])


def markov_chain(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    transitions: Sequence[Conditional],
    inverses: Sequence[Conditional],
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> tuple[Array, Array]:
    """One chain and its log-weight; differentiable in everything if the draws are.

    Args:
        x: what log_joint and the conditionals take as data, a batch of examples or one; may be None.
        log_joint: (x, z (*batch, *event)) -> log p(x, z), (*batch) in nats, normalised or not.
        initial: q_0(z_0 | x), or x -> q_0.
        transitions: T functions (x, z_{t-1}) -> q_t, whose sample is z_t; `Coordinate` for those that move one entry.
        inverses: T functions (x, z_t) -> r_t, whose log_prob is that of z_{t-1}; r_t stands beside q_t.
        densities: (initial, transitions) to take log q_0 and log q_t from, if not those that draw: with parameters
            under `stop_gradient`, the estimators of `vi.objective` are made of this.

    Returns:
        z_T and log w (*batch) in nats, E w = p(x) and E log w a lower bound on log p(x).

    Raises:
        InputError: if there are not as many inverses (or densities) as transitions, or if log_joint or a log_prob does
            not give one number per example.
    """
    first, later = densities or (initial, transitions)
    if not len(transitions) == len(inverses) == len(later):
        raise InputError(
            f"transitions has {len(transitions)} entries, inverses {len(inverses)} and densities {len(later)}: "
            "give one of each for every step"
        )
    keys = jax.random.split(key, len(transitions) + 1)
    z = at(initial, x).sample(keys[0])
    costs = [-at(first, x).log_prob(z)]
    for step_key, transition, density, inverse in zip(keys[1:], transitions, later, inverses, strict=True):
        before, z = z, transition(x, z).sample(step_key)
        costs += [inverse(x, z).log_prob(before), -density(x, before).log_prob(z)]
    total = jnp.asarray(log_joint(x, z))
    check_log_joint(total.shape, z)
    return z, total + sum(sum_events(cost, total.shape) for cost in costs)


def markov_chain_log_weight(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    transitions: Sequence[Conditional],
    inverses: Sequence[Conditional],
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> Array:
    """log w of one chain, (*batch) in nats; arguments and errors as in `markov_chain`."""
    return markov_chain(key, x, log_joint, initial, transitions, inverses, densities)[1]


def at(initial: Law | Callable[[Any], Law], x: Any) -> Law:
    return initial(x) if callable(initial) else initial


def check_log_joint(batch: tuple[int, ...], z: Array) -> None:
    if batch != z.shape[: len(batch)]:
        raise InputError(f"log_joint must give one number per example, of leading axes of {z.shape}, not shape {batch}")


def sum_events(log_prob: Array, batch: tuple[int, ...]) -> Array:
    """Log-probabilities summed over all but the leading axes, `batch`."""
    log_prob = jnp.asarray(log_prob)
    if log_prob.shape[: len(batch)] != batch:
        raise InputError(f"a log_prob of shape {log_prob.shape} does not fit log_joint's {batch}: keep the batch axes")
    return log_prob.sum(tuple(range(len(batch), log_prob.ndim)))
