"""Couplings: the pairs of source and data points, within a minibatch of n of each.

    paired       in the given order
    independent  in random order
    optimal      the permutation p that minimises (1/n) Σ_i |x_0^i - x_1^p(i)|²              (Pooladian et al. 2023)
    sinkhorn     p(i) is drawn from the row i of the plan π that minimises
                 Σ_ij π_ij |x_0^i - x_1^j|² - ε H(π), rows and columns of sum 1/n            (Tong et al. 2024)

A coupling is a function (key, source, x0, label) -> p (n,). The pairs are (x0, source[p]). It permutes the source, not
the data, so the data keep their labels. Lines between the pairs of an optimal coupling do not cross. So the velocity of
a flow along them is nearly constant on each path, and few steps suffice. As n grows, `sinkhorn` with ε = 2 s² gives the
ends of the Schrödinger bridge of diffusion s (`bridges`).

Without `label` a coupling is biased for p(x | y), even with many steps of a sampler. The data in the pairs have p(x_0 |
y), but p(x_1 | y) is no longer that of the source: each x_1 is paired mostly with the classes nearby. A sampler draws
x_1 from the source for every y, and reaches places where that class was not trained. With `label`, pairs have one
class, and each source gets the class of a random example. Then p(x_1 | y) is that of the source.

Points are flattened. The coupling of a minibatch is that of the two distributions only in the limit of large n.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from diffjax import randomness
from diffjax.dtypes import alike
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul

Coupling = Callable[[randomness.Keys, Array, Array, Array | None], Array]
ITERATIONS = 1000  # the most of Sinkhorn's algorithm, each of all rows and all columns
TOLERANCE = 1e-3  # the relative error of the columns' sums at which it ends


def paired(
    key: randomness.Keys,
    source: Float[Array, "batch *event"],
    x0: Float[Array, "batch *event"],
    label: Int[Array, " batch"] | None = None,
) -> Int[Array, " batch"]:
    """p(i) = i, for data that come in pairs, and for noise, which is independent of the data.

    Raises:
        InputError: if the shapes differ.
    """
    _check("paired", source, x0, least=1)
    return jnp.arange(len(x0))


def independent(
    key: randomness.Keys,
    source: Float[Array, "batch *event"],
    x0: Float[Array, "batch *event"],
    label: Int[Array, " batch"] | None = None,
) -> Int[Array, " batch"]:
    """A uniformly random permutation, so that the pairs of two data sets change from batch to batch.

    Raises:
        InputError: if the shapes differ.
    """
    _check("independent", source, x0, least=1)
    return jnp.argsort(randomness.uniform(key, (len(x0),)))


def optimal(
    key: randomness.Keys,
    source: Float[Array, "batch *event"],
    x0: Float[Array, "batch *event"],
    label: Int[Array, " batch"] | None = None,
) -> Int[Array, " batch"]:
    """The exact assignment with the least squared distance. It takes time batch³ at worst, on the host.

    Args:
        label: of x0. Source i has the class label[i], too, and both points of a pair have the same class.

    Raises:
        InputError: if the shapes differ, or if the batch has one example, which leaves no choice.
    """
    _check("optimal", source, x0, least=2)
    cost = _cost(source, x0, label)
    return jax.pure_callback(_assign, jax.ShapeDtypeStruct(cost.shape[:1], jnp.int32), cost, vmap_method="sequential")


def sinkhorn(epsilon: float, iterations: int = ITERATIONS) -> Coupling:
    """Draws from the plan of entropic optimal transport, by Sinkhorn's algorithm in logarithms (Cuturi 2013).

    A source may be drawn more than once, and another not at all. On average the sources keep their distribution,
    because the columns of the plan have equal sums.

    Args:
        epsilon: ε > 0, in units of squared distance. It is `optimal` as ε → 0, and independent draws as ε → ∞.
        iterations: the most. A smaller epsilon, in units of the squared distance, needs more.

    Raises:
        InputError: if epsilon is not positive and finite, or iterations is no positive integer. The coupling raises it
            if the shapes differ, or if the batch has one example.
    """
    if not isinstance(epsilon, jax.core.Tracer) and not 0 < epsilon < float("inf"):
        raise InputError(f"epsilon={epsilon} of sinkhorn must be positive and finite, a squared distance")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise InputError(f"iterations={iterations!r} of sinkhorn must be a positive integer")

    def coupling(
        key: randomness.Keys,
        source: Float[Array, "batch *event"],
        x0: Float[Array, "batch *event"],
        label: Int[Array, " batch"] | None = None,
    ) -> Int[Array, " batch"]:
        _check("sinkhorn", source, x0, least=2)
        log_plan = log_entropic_plan(source, x0, epsilon, iterations, label)
        return jax.vmap(jax.random.categorical)(randomness.each(key, len(x0)), log_plan)

    return coupling


def log_entropic_plan(
    source: Float[Array, "batch *event"],
    x0: Float[Array, "batch *event"],
    epsilon: float,
    iterations: int = ITERATIONS,
    label: Int[Array, " batch"] | None = None,
) -> Float[Array, "batch batch"]:
    """log π_ij of x0[i] and source[j]. Rows sum to 1/batch up to rounding, columns up to `TOLERANCE`."""
    kernel = -_cost(source, x0, label) / epsilon
    log_share = -jnp.log(jnp.asarray(len(kernel), kernel.dtype))

    def update(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, columns, _ = carry
        rows = log_share - jax.nn.logsumexp(kernel + columns, axis=1)
        new = log_share - jax.nn.logsumexp(kernel + rows[:, None], axis=0)
        return i + 1, new, jnp.abs(new - columns).max()  # the last number is the error of the columns' sums

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        i, _, error = carry
        return (i < iterations) & (error > TOLERANCE)

    columns = jnp.zeros_like(kernel[0])
    _, columns, _ = jax.lax.while_loop(unfinished, update, (jnp.array(0), columns, jnp.array(jnp.inf, kernel.dtype)))
    rows = log_share - jax.nn.logsumexp(kernel + columns, axis=1)
    return kernel + rows[:, None] + columns


# Couplings by name. Each takes those fields of a configuration that its arguments name.
COUPLINGS: dict[str, Callable[..., Coupling]] = {
    "paired": lambda: paired,
    "independent": lambda: independent,
    "optimal": lambda: optimal,
    "sinkhorn": sinkhorn,
}


def _cost(source: Array, x0: Array, label: Array | None) -> Array:
    """|x0[i] - source[j]|², up to a number for each row and one for each column, which do not change the plan.

    Both are centred before the product, so that no digits are lost to a common mean. Between classes it is infinite.
    """
    source, x0 = (jax.lax.stop_gradient(x).reshape(len(x), -1) for x in alike(source, x0))
    cost = -2.0 * matmul(x0 - x0.mean(0), (source - source.mean(0)).T)
    return cost if label is None else jnp.where(label[:, None] == label, cost, jnp.inf)


def _assign(cost: np.ndarray) -> np.ndarray:
    """The columns of the best assignment. A row or column with NaN costs nothing."""
    from scipy.optimize import linear_sum_assignment  # here, so that `import diffjax` stays light

    return linear_sum_assignment(np.nan_to_num(np.float64(cost), nan=0.0, posinf=np.inf))[1].astype(np.int32)


def _check(name: str, source: Array, x0: Array, least: int) -> None:
    if jnp.shape(source) != jnp.shape(x0):
        raise InputError(
            f"the coupling {name!r} needs source and x0 of one shape, not source {jnp.shape(source)} and x0"
            f" {jnp.shape(x0)}"
        )
    if len(x0) < least:
        raise InputError(f"the coupling {name!r} needs a batch of at least {least}, not {len(x0)}: raise batch_size")
