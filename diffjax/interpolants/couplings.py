"""Couplings: which source point is paired with which data point, within a minibatch of n of each.

    paired       as they come
    independent  in random order
    optimal      the permutation p that minimises (1/n) Σ_i |x_0^i - x_1^p(i)|²              (Pooladian et al. 2023)
    sinkhorn     p(i) is drawn from the row i of the plan π that minimises
                 Σ_ij π_ij |x_0^i - x_1^j|² - ε H(π), rows and columns of sum 1/n            (Tong et al. 2024)

A coupling is a function (key, source, x0, label) -> p (n,). The pairs are (x0, source[p]). It permutes the source and
not the data, so each label stays with its data point. Lines between the pairs of an optimal coupling do not cross. So
the velocity of a flow along them is nearly constant on each path, and few steps are enough. As n grows, `sinkhorn` with
ε = 2 s² gives the ends of the Schrödinger bridge with diffusion s (`bridges`).

Without `label`, a coupling is biased for p(x | y), for any number of sampler steps. The data of the pairs follow
p(x_0 | y), but p(x_1 | y) is no longer the distribution of the source: a source point is mostly paired with the classes
near it. A sampler draws x_1 from the whole source for every y, so it starts where that class was never trained. With
`label`, each source gets the class of a random example, and all pairs are within one class. Then p(x_1 | y) is the
distribution of the source.

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
ITERATIONS = 1000  # the most of Sinkhorn's algorithm; each updates all rows and all columns
TOLERANCE = 1e-3  # the relative error of the columns' sums at which it ends


def paired(
    key: randomness.Keys,
    source: Float[Array, "batch *event"],
    x0: Float[Array, "batch *event"],
    label: Int[Array, " batch"] | None = None,
) -> Int[Array, " batch"]:
    """p(i) = i, for data that come in pairs, and for noise, which is independent of the data anyway.

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
    """A uniform permutation, so that examples of two sets have new partners each time.

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
    """The exact assignment of least squared distance, on the host (`jax.pure_callback`), in time batch³ at worst.

    Args:
        label: the classes of x0. Source i gets the class label[i], too, and pairs are within one class.

    Raises:
        InputError: if the shapes differ, or the batch has a single example, so that there is nothing to choose.
    """
    _check("optimal", source, x0, least=2)
    cost = _cost(source, x0, label)
    return jax.pure_callback(_assign, jax.ShapeDtypeStruct(cost.shape[:1], jnp.int32), cost, vmap_method="sequential")


def sinkhorn(epsilon: float, iterations: int = ITERATIONS) -> Coupling:
    """Draws from the plan of entropic optimal transport, by Sinkhorn's algorithm in logarithms (Cuturi 2013).

    A source may be drawn several times or not at all. On average the distribution of the source is kept, because the
    columns of the plan have equal sums.

    Args:
        epsilon: ε > 0, in units of squared distance. The limit 0 is `optimal`; the limit infinity is independent draws.
        iterations: the largest number. The smaller epsilon is compared with the squared distances, the more are needed.

    Raises:
        InputError: if epsilon is not positive and finite or iterations is not a positive integer; from the coupling, if
            the shapes differ or the batch has a single example.
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
    """log π_ij of x0[i] and source[j]. Rows and columns sum to 1/batch: rows up to rounding, columns to `TOLERANCE`."""
    kernel = -_cost(source, x0, label) / epsilon
    log_share = -jnp.log(jnp.asarray(len(kernel), kernel.dtype))

    def update(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, columns, _ = carry
        rows = log_share - jax.nn.logsumexp(kernel + columns, axis=1)
        new = log_share - jax.nn.logsumexp(kernel + rows[:, None], axis=0)
        return i + 1, new, jnp.abs(new - columns).max()  # the last one is the error of the columns' sums

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
    """|x0[i] - source[j]|² up to one number for each row and one for each column, which do not change the plan.

    Both are centred before the product, so that a common mean causes no rounding errors. The cost between different
    classes is infinite.
    """
    source, x0 = (jax.lax.stop_gradient(x).reshape(len(x), -1) for x in alike(source, x0))
    cost = -2.0 * matmul(x0 - x0.mean(0), (source - source.mean(0)).T)
    return cost if label is None else jnp.where(label[:, None] == label, cost, jnp.inf)


def _assign(cost: np.ndarray) -> np.ndarray:
    """The columns of the best assignment. The cost of NaN is 0, because nothing is known about it."""
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
