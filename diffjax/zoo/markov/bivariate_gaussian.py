"""Gibbs sampling and over-relaxation as variational inference of a bivariate Gaussian (Salimans et al. 2015).

`over_relaxation.py` has the chains and their closed forms. p is normalised, so log Z = 0. With the best inverse models
the bound is exactly -KL(q(z_T) ‖ p). Learned ones are linear, too. They are trained together with a (algorithm 2) and
should reach this bound. One set of parameters has chains of several lengths, each with Gibbs sampling, with a given a,
and with a learned a.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from diffjax import randomness, registry, vi
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Curves, Figure, Figures, Panels, Points
from diffjax.zoo.markov.over_relaxation import Inverses, Target, best, chain, exact, target
from diffjax.zoo.model import Batch, Model, image_of

LEARNED = 2  # the last of the three ways to move
AXES = ("z_1", "z_2")


class Chains(NamedTuple):
    """Chains of several lengths, each in three ways: Gibbs sampling, with the given a, and with a learned a.

    The parameters are {"atanh_a": (lengths,), "inverses": Inverses of (lengths, 3, steps, ...)}.
    """

    p: Target
    lengths: tuple[int, ...]
    given: float

    @property
    def ways(self) -> tuple[str, str, str]:
        return ("Gibbs", f"a = {self.given}", "learned a")

    @property
    def longest(self) -> int:
        return self.lengths[-1]

    @property
    def active(self) -> np.ndarray:
        """(lengths, steps): the last steps of a chain are its own."""
        return np.arange(self.longest) >= self.longest - np.array(self.lengths)[:, None]

    def init(self, key: Array) -> Any:
        del key  # Gibbs sampling and its inverse in equilibrium are where to start
        shape = (len(self.lengths), 3, self.longest)
        return {
            "atanh_a": jnp.zeros(len(self.lengths)),
            "inverses": Inverses(jnp.zeros((*shape, 2)), jnp.zeros(shape), jnp.zeros(shape)),
        }

    def all_a(self, atanh_a: Array) -> Float[Array, "lengths 3"]:
        num = len(self.lengths)
        return jnp.stack([jnp.zeros(num), jnp.full(num, self.given), jnp.tanh(atanh_a)], axis=1)

    def draw(self, a: Array, inverses: Inverses, key: Array, density_a: Array) -> tuple[Array, Array]:
        """One chain of each length and way, (lengths, 3, ...), with the same noise: z_T and log w."""

        def one(a: Array, inverse: Inverses, active: Array, density_a: Array) -> tuple[Array, Array]:
            return chain(self.p, a, inverse, active, key, density_a)

        return jax.vmap(jax.vmap(one, (0, 0, None, 0)))(a, inverses, jnp.asarray(self.active), density_a)

    def last(self, params: Any, keys: Array) -> tuple[Array, Array]:
        """z_T (num, 2) and log w (num,) of the longest chain with learned a."""
        a, own = jnp.tanh(params["atanh_a"][-1]), jax.tree.map(lambda leaf: leaf[-1, LEARNED], params["inverses"])
        active = jnp.asarray(self.active[-1])
        return jax.vmap(lambda key: chain(self.p, a, own, active, key))(keys)

    def compare(self, params: Any, perfect: Inverses, keys: Array) -> tuple[Array, Array, Array]:
        """z_T, log-weights, and those with perfect inverse models on the same chains, (lengths, 3, num, ...)."""

        def one(key: Array) -> tuple[Array, Array, Array]:
            a = self.all_a(params["atanh_a"])
            return *self.draw(a, params["inverses"], key, a), self.draw(a, perfect, key, a)[1]

        return jax.vmap(one, out_axes=2)(keys)


class Found(NamedTuple):
    """a and KL(q(z_T) ‖ p) in closed form, (lengths, 3). For drawn chains z_T (lengths, 3, num, 2), and log w and log w
    with perfect inverse models, both (lengths, 3, num)."""

    a: np.ndarray
    kl: np.ndarray
    z: np.ndarray
    log_w: np.ndarray
    perfect: np.ndarray


def bivariate_gaussian(
    sigmas: Sequence[float],
    lengths: Sequence[int],
    *,
    over_relaxation: float = -0.5,
    estimator: Estimator = "reparameterized",
    num_draws: int = 1000,
) -> Model:
    """Markov chains as posteriors of a bivariate Gaussian.

    A batch gives the number of chains. For the figures it has exact draws of p. `bound` and `sample` use the longest
    chain with learned a. `loss` is the mean over all chains.

    Args:
        sigmas: σ_1 of the difference and σ_2 of the sum of the two entries.
        lengths: of the chains, increasing.
        over_relaxation: the a of the second way to move, between -1 and 1.
        estimator: of the gradient, see `vi.objective`.
        num_draws: the number of chains for every number of the table.
    """
    chains = Chains(target(sigmas), tuple(lengths), over_relaxation)
    compare = jax.jit(chains.compare)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array) -> Array:
            def log_weights(inverses: Inverses, atanh_a: Array, density: Array) -> Float[Array, "1 lengths 3"]:
                return chains.draw(chains.all_a(atanh_a), inverses, key, chains.all_a(density))[1][None]

            return -vi.objective(log_weights, params["inverses"], params["atanh_a"], estimator).mean()

        return jax.vmap(one)(randomness.each(key, len(image_of(batch))))

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return chains.last(params, randomness.each(key, len(image_of(batch))))[1]

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"chain": -bound(params, key, batch)}

    def sample(params: Any, key: Array, num: int) -> Array:
        return chains.last(params, randomness.each(key, num))[0]

    def measured(params: Any, key: Array) -> Found:
        return _measured(chains, compare, params, key, num_draws)

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        return _table(chains, measured(params, key))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        return _figures(chains, measured(params, key), image_of(batch))

    def picture(samples: Array) -> Panels:
        return Panels([[Points(f"{chains.ways[LEARNED]}, T = {chains.longest}", samples)]], AXES)

    measures = (Bound(terms, unit="nats"), ManySamples(bound), Table(table))
    return Model(chains.init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _measured(chains: Chains, compare: Callable[..., Any], params: Any, key: Array, num: int) -> Found:
    """`compare` is `chains.compare`, compiled."""
    a = np.asarray(chains.all_a(params["atanh_a"]), np.float64)
    known = [[exact(chains.p, value, n) for value in row] for n, row in zip(chains.lengths, a, strict=True)]
    kl = np.array([[e.kl[-1] for e in row] for row in known])
    padded = [jax.tree.map(_late(chains.longest), e.inverses) for row in known for e in row]
    perfect = jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(*a.shape, *leaves[0].shape), *padded)
    drawn = compare(params, perfect, randomness.each(key, num))
    return Found(a, kl, *(np.asarray(part, np.float64) for part in drawn))


def _table(chains: Chains, found: Found) -> dict[str, dict[str, float]]:
    """In nats. "below exact" is the loss of learned inverse models against perfect ones on the same chains."""
    best_a, least = best(chains.p, chains.longest)
    rows = {}
    gaps = found.perfect - found.log_w
    for n, *columns in zip(chains.lengths, found.a, found.kl, found.log_w, gaps, strict=True):
        for way, a, kl, bounds, gap in zip(chains.ways, *columns, strict=True):
            rows[f"T = {n}, {way}"] = {
                "exact": -float(kl),
                "learned": float(bounds.mean()),
                "standard error": _error(bounds),
                "below exact": float(gap.mean()),
                "its error": _error(gap),
                "a": float(a),
            }
        learned = rows[f"T = {n}, {chains.ways[LEARNED]}"]
        learned |= {"best a": float(best_a[n - 1]), "exact at best a": -float(least[n - 1])}
    return rows


def _figures(chains: Chains, found: Found, draws: Array) -> dict[str, Figure]:
    """The bound against the length of the chain, in closed form and learned; draws of the middle length beside p's."""
    p, lengths, longest, ways = chains.p, chains.lengths, chains.longest, chains.ways
    steps = np.arange(longest + 1)
    gibbs = exact(p, 0.0, longest).kl
    best_kl = np.concatenate([gibbs[:1], best(p, longest)[1]])
    curves = zip(("Gibbs", ways[1], "best a"), (gibbs, exact(p, chains.given, longest).kl, best_kl), strict=True)
    lines = {f"exact, {name}": (steps, -kl) for name, kl in curves}
    # What was learned is a dash at its height: a line would hide the curve that it falls on.
    dashes = (np.array(lengths)[:, None] + [-0.3, 0.3, np.nan]).ravel()
    names = ("learned r, Gibbs", f"learned r, {ways[1]}", "learned r and a")
    lines |= {name: (dashes, np.repeat(h, 3)) for name, h in zip(names, found.log_w.mean(2).T, strict=True)}
    middle = len(lengths) // 2
    theirs = [Points(f"{way}, T = {lengths[middle]}", found.z[middle, i, : len(draws)]) for i, way in enumerate(ways)]
    return {
        "bound": Curves(lines, "T, updates of one coordinate", "bound on log Z = 0 [nats]"),
        "draws": Panels([[Points("p", draws), *theirs]], AXES),
    }


def _late(num_steps: int) -> Callable[[Array], Array]:
    """Puts zeros before the steps of a shorter chain, so that all chains end together."""
    return lambda leaf: jnp.concatenate([jnp.zeros((num_steps - len(leaf), *leaf.shape[1:])), leaf])


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan


def make(config: Any) -> Model:
    """The Model of `config.{data, chain, evaluation}`, see configs/mcvi_bivariate_gaussian.py.

    Raises:
        InputError: on data that are no pairs of real numbers, or a value of the chains out of range.
    """
    _check(config)
    return bivariate_gaussian(
        config.data.sigmas,
        config.chain.num_steps,
        over_relaxation=config.chain.over_relaxation,
        estimator=config.chain.estimator,
        num_draws=config.evaluation.batch_size,
    )


def _check(config: Any) -> None:
    if tuple(config.data.shape) != (2,) or config.data.levels != 0:
        shape, levels = tuple(config.data.shape), config.data.levels
        raise InputError(f"a bivariate Gaussian needs data.shape=(2,) and data.levels=0, not {shape} and {levels}")
    sigmas = config.data.sigmas
    if not isinstance(sigmas, tuple | list) or len(sigmas) != 2 or not all(s > 0 for s in sigmas):
        raise InputError(f"data.sigmas must be two positive numbers, of the difference and of the sum, not {sigmas!r}")
    lengths = config.chain.num_steps
    whole = isinstance(lengths, tuple | list) and all(isinstance(n, int) and n > 0 for n in lengths)
    if not whole or not lengths or list(lengths) != sorted(set(lengths)):
        raise InputError(f"chain.num_steps must be positive integers in increasing order, not {lengths!r}")
    if not -1 < config.chain.over_relaxation < 1:
        raise InputError(f"chain.over_relaxation must lie between -1 and 1, not {config.chain.over_relaxation!r}")
    registry.choose("chain.estimator", config.chain.estimator, get_args(Estimator))
