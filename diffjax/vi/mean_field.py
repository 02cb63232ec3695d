"""Black-box variational inference with a factorised distribution (Ranganath et al. 2014, Kucukelbir et al. 2017).

    q(z) = Π_i q_i(z_i),    ELBO = E_q[log p(x, z)] - E_q[log q(z)] ≤ log p(x)

Monte-Carlo gradients (`vi.gradient`) climb it. The model needs only log p(x, z) at points, and its derivative there if
the estimator reparameterises. `normal` is the family for real z, of any pytree. `fit` also takes others.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PRNGKeyArray, PyTree

from diffjax import eager
from diffjax.distributions import Normal
from diffjax.dtypes import as_float, floating
from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps, promoted
from diffjax.vi.gradients import (
    GradientEstimator,
    MovingAverage,
    Own,
    expectation,
    sampled_entropy,
    value_and_gradient,
)
from diffjax.vi.markov_chain import Law, check_event


class Factorised(NamedTuple):
    """Independent distributions, one for each entry of a dict, tuple or list. A draw has the same entries.

    `log_prob`, `kl` and `entropy` are sums over all elements, in nats.
    """

    laws: Any

    def sample(self, key: PRNGKeyArray) -> PyTree[Array]:
        laws, structure = jax.tree.flatten(self.laws, is_leaf=_is_law)
        keys = jax.random.split(key, len(laws))
        return jax.tree.unflatten(structure, [law.sample(key) for law, key in zip(laws, keys, strict=True)])

    def log_prob(self, z: PyTree[Array]) -> Float[Array, ""]:
        return _sum(lambda law, z: (law.log_prob(z), z), self.laws, z)

    def kl(self, other: "Factorised") -> Float[Array, ""]:
        """KL(self ‖ other) in nats.

        Raises:
            InputError: if a distribution of `other` has an axis that its counterpart does not have.
        """
        return _sum(lambda law, prior: (law.kl(prior), _draw(law)), self.laws, other.laws)

    def entropy(self) -> Float[Array, ""]:
        return _sum(lambda law: (law.entropy(), _draw(law)), self.laws)


class NormalParams(NamedTuple):
    """Means and log standard deviations, pytrees like z."""

    mean: PyTree[Array]
    log_std: PyTree[Array]


def normal(params: NormalParams) -> Factorised:
    """The family N(mean, exp(2 log_std)) of every element of z."""
    return Factorised(jax.tree.map(lambda mean, log_std: Normal(mean, jnp.exp(2.0 * log_std)), *params))


def start(position: PyTree[ArrayLike], std: float = 1.0) -> NormalParams:
    """The parameters of Normals around a position, all with the same standard deviation.

    Raises:
        InputError: if std is not positive and finite.
    """
    if not 0 < std < math.inf:
        raise InputError(f"std must be positive and finite, not {std}")
    position = jax.tree.map(as_float, position)
    return NormalParams(position, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(std)), position))


class Optimizer(Protocol):
    """The interface of an `optax.GradientTransformation`: updates are added to parameters, and descend."""

    def init(self, params: Any) -> Any: ...
    def update(self, updates: Any, state: Any, params: Any) -> tuple[Any, Any]: ...


class Fit(NamedTuple):
    """The last parameters, and the estimate of the ELBO at each step, in nats."""

    params: Any
    elbo: Float[Array, " steps"]


def fit(
    key: PRNGKeyArray,
    log_joint: Callable[[Any], Array],
    family: Callable[[Any], Law],
    params: Any,
    optimizer: Optimizer,
    num_steps: int,
    num: int = 8,
    estimator: GradientEstimator = "reparameterized",
    own: Own = sampled_entropy,
) -> Fit:
    """Maximises the ELBO by `num_steps` of an optimizer, as one scan.

    Args:
        log_joint: z -> log p(x, z), a scalar in nats, normalised or not.
        family, params: q, e.g. `normal` and `start(position)`; see `vi.expectation`.
        num: draws in each step.
        own: the entropy of q, `sampled_entropy` or `analytic_entropy`.

    The baseline of "score" is the moving average of earlier values.

    Raises:
        InputError: if num_steps is not a positive integer, or as `vi.expectation`.
    """
    num_steps = check_num_steps("num_steps", num_steps)

    def step(carry: tuple[Any, Any, MovingAverage], key: PRNGKeyArray) -> tuple[Any, Array]:
        params, state, average = carry
        values, slope = value_and_gradient(log_joint, family, params, key, num, estimator, own, average.value)
        updates, state = optimizer.update(jax.tree.map(jnp.negative, slope), state, params)
        params = jax.tree.map(lambda p, update: p + jnp.asarray(update, p.dtype), params, updates)
        return (params, state, average.update(values)), values.mean()

    def program(params: Any, key: PRNGKeyArray) -> Fit:
        first_key, key = jax.random.split(key)
        average = MovingAverage().update(expectation(log_joint, family, params, first_key, num, estimator, own))
        carry = (params, optimizer.init(params), average)
        (params, _, _), elbo = jax.lax.scan(step, carry, jax.random.split(key, num_steps))
        return Fit(params, elbo)

    return eager.once(program, promoted(params), key)


def _is_law(node: Any) -> bool:
    return hasattr(node, "log_prob")


def _draw(law: Law) -> Any:
    """The shapes and types of a draw."""
    return jax.eval_shape(law.sample, jax.random.key(0))


def _sum(of: Callable[..., tuple[Array, Any]], laws: Any, *others: Any) -> Float[Array, ""]:
    """The sum of all terms. `of` gives those of a distribution, and a draw, whose axes they must have."""

    def one(law: Law, *rest: Any) -> Array:
        terms, z = of(law, *rest)
        check_event("a distribution's term", terms, z)
        return as_float(terms).sum()

    terms = jax.tree.leaves(jax.tree.map(one, laws, *others, is_leaf=_is_law))
    dtype = floating(terms)
    return sum((term.astype(dtype) for term in terms), jnp.zeros((), dtype))
