"""Markov chain variational inference (Salimans, Kingma & Welling 2015, algorithm 1).

A chain z_0 ~ q_0(. | x), z_t ~ q_t(. | x, z_{t-1}) ends in z_T. Inverse models r_t(z_{t-1} | x, z_t) predict the step
before. In the space of whole chains this is importance sampling of p(x, z_T) Π_t r_t:

    w = p(x, z_T) Π_t r_t(z_{t-1} | x, z_t) / [q_0(z_0 | x) Π_t q_t(z_t | x, z_{t-1})],    E w = p(x)

So E log w ≤ log p(x). The paper's sum of log p(x, z_t) r_t / (p(x, z_{t-1}) q_t) telescopes to the same. The gap is
KL(q(z_T | x) ‖ p(z_T | x)) + E KL(q(z_0..z_{T-1} | x, z_T) ‖ Π r_t). The second term is 0 for perfect inverse models.
Transitions that leave p(z | x) invariant bring the first one to 0.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import eager
from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.mcmc.integrators import promoted

LogJoint = Callable[[Any, Array], Array]


class Law(Protocol):
    """What a chain needs of a Distribution. `log_prob` is elementwise, or of whole events."""

    def sample(self, key: PRNGKeyArray) -> Array: ...
    def log_prob(self, x: Array) -> Array: ...


Conditional = Callable[[Any, Array], Law]


class Coordinate(NamedTuple):
    """The distribution of z after a Gibbs step: only its `coordinate` is drawn again, from `law`.

    In a transition, `z` is the start of the step. In an inverse model, it is the end. `log_prob` has only the density
    of the coordinate, because the others are known.
    """

    z: Float[Array, "*batch dim"]
    coordinate: int
    law: Law

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch dim"]:
        return self.z.at[..., self.coordinate].set(jnp.asarray(self.law.sample(key), self.z.dtype))

    def log_prob(self, z: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        log_prob = self.law.log_prob(z[..., self.coordinate])
        check_event("a coordinate's log_prob", log_prob, z[..., self.coordinate])
        return log_prob


def markov_chain(
    key: PRNGKeyArray,
    x: Any,
    log_joint: LogJoint,
    initial: Law | Callable[[Any], Law],
    transitions: Sequence[Conditional],
    inverses: Sequence[Conditional],
    densities: tuple[Any, Sequence[Conditional]] | None = None,
) -> tuple[Array, Array]:
    """One chain and its log-weight. It is differentiable in everything if the draws are.

    Args:
        x: the data for log_joint and the conditionals, a batch of examples or one. It may be None.
        log_joint: (x, z (*batch, *event)) -> log p(x, z), (*batch) in nats, normalised or not.
        initial: q_0(z_0 | x), or x -> q_0.
        transitions: T functions (x, z_{t-1}) -> q_t, whose sample is z_t. `Coordinate` is for steps of one entry.
        inverses: T functions (x, z_t) -> r_t, whose log_prob is that of z_{t-1}. r_t belongs to q_t.
        densities: (initial, transitions) for log q_0 and log q_t, if they differ from those that draw. The estimators
            of `vi.objective` give them parameters under `stop_gradient`.

    Returns:
        z_T (*batch, *event) and log w (*batch) in nats. E w = p(x), and E log w is a lower bound on log p(x).

    Raises:
        InputError: if there are not as many inverses (or densities) as transitions, log_joint or a log_prob does not
            give one number per example, or a log_prob has an axis that its z does not have.
    """
    first, later = densities or (initial, transitions)
    if not len(transitions) == len(inverses) == len(later):
        raise InputError(
            f"transitions has {len(transitions)} entries, inverses {len(inverses)} and densities {len(later)}: "
            "give one of each for every step"
        )

    def program(key: PRNGKeyArray) -> tuple[Array, Array]:
        keys = jax.random.split(key, len(transitions) + 1)
        z = promoted(at(initial, x).sample(keys[0]))
        gains = [(-at(first, x).log_prob(z), z)]
        for step_key, transition, density, inverse in zip(keys[1:], transitions, later, inverses, strict=True):
            before, z = z, promoted(transition(x, z).sample(step_key))
            gains += [(inverse(x, z).log_prob(before), before), (-density(x, before).log_prob(z), z)]
        total = as_float(log_joint(x, z))
        check_log_joint(total.shape, z)
        return z, total + sum(sum_events(*gain, total) for gain in gains)

    return eager.once(program, key)


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


def sum_events(log_prob: Array, z: Array, total: Array) -> Array:
    """log_prob of z, in the type of `total`, summed over all axes but those of `total`, which are leading axes."""
    log_prob, num = jnp.asarray(log_prob, total.dtype), total.ndim
    if log_prob.shape[:num] != total.shape:
        raise InputError(
            f"a log_prob of shape {log_prob.shape} does not fit log_joint's {total.shape}: keep the batch axes"
        )
    check_event("a log_prob", log_prob, z)
    return log_prob.sum(tuple(range(num, log_prob.ndim)))


def check_log_joint(batch: tuple[int, ...], z: Array) -> None:
    if batch != z.shape[: len(batch)]:
        raise InputError(
            f"log_joint must give one number per example: its shape {batch} must be leading axes of z's {z.shape}"
        )


def check_event(name: str, log_prob: Array, z: Any) -> None:
    """If z is an array, all axes of log_prob must be leading axes of z. Another axis would count terms repeatedly."""
    shape = jnp.shape(log_prob)
    if jax.tree_util.all_leaves([z]) and shape != jnp.shape(z)[: len(shape)]:
        raise InputError(
            f"{name} of shape {shape} does not fit draws of shape {jnp.shape(z)}, whose leading axes it must have: "
            "look for an axis of length 1 in the parameters of the distribution"
        )
