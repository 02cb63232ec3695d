"""Invertible maps with their log-determinants, and the densities of what they map (Rezende & Mohamed 2015).

    x ~ p,  y = f(x):    log p_y(y) = log p(x) - log |det ∂f/∂x|

A `Flow` has two pure functions of vectors with any leading axes. They close over the parameters: outputs of a network
for each example, or leaves of a pytree that `jax.grad` goes through. The leading axes of parameters and vectors
broadcast. Both together determine the type of the result (`dtypes`).
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

Move = Callable[[Array], tuple[Array, Array]]


class Flow(NamedTuple):
    """An invertible map. Both functions take (*batch, dim) and give (*batch, dim) and a log-determinant (*batch,).

    If the parameters have batch axes that a vector lacks, the result has them.

    forward_and_log_det: x -> y, log |det ∂y/∂x|
    inverse_and_log_det: y -> x, log |det ∂x/∂y|
    """

    forward_and_log_det: Move
    inverse_and_log_det: Move


def invert(flow: Flow) -> Flow:
    """The inverse map."""
    return Flow(flow.inverse_and_log_det, flow.forward_and_log_det)


def chain(flows: Sequence[Flow]) -> Flow:
    """The flows one after the other, beginning with the first.

    Raises:
        InputError: if there is none.
    """
    flows = tuple(flows)
    if not flows:
        raise InputError("flows is empty: a chain needs at least one")

    def through(moves: Sequence[Move], x: Array) -> tuple[Array, Array]:
        x, total = moves[0](x)
        for move in moves[1:]:
            x, log_det = move(x)
            total = total + log_det
        return x, total

    forward = [flow.forward_and_log_det for flow in flows]
    inverse = [flow.inverse_and_log_det for flow in flows[::-1]]
    return Flow(lambda x: through(forward, x), lambda y: through(inverse, y))


def stacked(layer: Callable[[Any], Flow], params: Any) -> Flow:
    """`chain` of layer(p) for every p along the leading axis of `params`, as one `lax.scan`. One layer is compiled."""

    def through(name: str, x: Array) -> tuple[Array, Array]:
        def step(carry: tuple[Array, Array], p: Any) -> tuple[tuple[Array, Array], None]:
            x, total = carry
            y, log_det = getattr(layer(p), name)(x)
            return (y, total + log_det), None

        x = as_float(x)
        first = jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p)[1:], jnp.result_type(p)), params)
        like = jax.eval_shape(lambda x, p: getattr(layer(p), name)(x)[0], x, first)
        start = (jnp.broadcast_to(x, like.shape).astype(like.dtype), jnp.zeros(like.shape[:-1], like.dtype))
        reverse = name == "inverse_and_log_det"
        return eager.once(lambda start, params: jax.lax.scan(step, start, params, reverse=reverse)[0], start, params)

    return Flow(*(lambda x, name=name: through(name, x) for name in Flow._fields))


class Base(Protocol):
    """The distribution that a flow starts from, of (*batch, dim). `log_prob` is elementwise, or of whole vectors."""

    def sample(self, key: PRNGKeyArray) -> Array: ...
    def log_prob(self, x: Array) -> Array: ...


class Transformed(NamedTuple):
    """The distribution of y = flow(x), x ~ base. Log-probabilities are of whole vectors, in nats.

    Batch axes of base, flow and y broadcast. The log_prob of one y under a batch of distributions is (*batch,). Draws
    are independent along the axes of the base. `sample_and_log_prob` is differentiable in all parameters and needs no
    inverse, as a variational posterior needs it.
    """

    base: Base
    flow: Flow

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch dim"]:
        return self.flow.forward_and_log_det(self.base.sample(key))[0]

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, "*batch dim"], Float[Array, "*batch"]]:
        x = self.base.sample(key)
        y, log_det = self.flow.forward_and_log_det(x)
        return y, self._base_log_prob(x) - log_det

    def log_prob(self, y: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        x, log_det = self.flow.inverse_and_log_det(y)
        return self._base_log_prob(x) + log_det

    def _base_log_prob(self, x: Array) -> Array:
        # If x has all batch axes of the base, an elementwise density has the axes of x, and one of vectors one less.
        drawn = jax.eval_shape(self.base.sample, jax.random.key(0))
        x = jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, drawn.shape))
        log_prob = self.base.log_prob(x)
        return log_prob.sum(-1) if log_prob.ndim == x.ndim else log_prob


def concrete(x: Any) -> bool:
    """Whether the values are known now. They are not inside `jit`, `grad` or `scan`."""
    return not isinstance(x, jax.core.Tracer)


def check_dim(what: str, dim: int, x: Array) -> None:
    if x.ndim < 1 or x.shape[-1] != dim:
        raise InputError(f"{what} is for vectors of {dim} entries, not an array of shape {x.shape}")
