"""Gibbs sampling and over-relaxation as variational inference of a bivariate Gaussian (Salimans et al. 2015).

    p(z) ∝ exp[-(z_1 - z_2)²/(2σ_1²) - (z_1 + z_2)²/(2σ_2²)]
    p(z_i | z_j) = N(κ z_j, τ²),    κ = (σ_2² - σ_1²)/(σ_2² + σ_1²),    τ² = σ_1² σ_2²/(σ_1² + σ_2²)

A chain starts from the best factorised Gaussian, N(0, τ² I), and moves its two entries in turn, by Adler's
over-relaxation, of which a = 0 is Gibbs sampling, and a may be learned:

    z_i' ~ N(κ z_j + a (z_i - κ z_j), τ² (1 - a²))

Every q(z_t) is then a Gaussian N(0, C_t), and the best inverse model q(z_{t-1} | z_t) is linear with a constant
variance. p is normalised, so that log Z = 0 and with the best inverse models the bound is -KL(q(z_T) ‖ p) exactly;
learned ones, linear too and trained together with a (algorithm 2), should get there. One set of parameters holds chains
of several lengths, each with Gibbs sampling, with a given a and with a of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

from diffjax import mcmc, randomness, vi
from diffjax.distributions import LOG_2PI, Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.vi.markov_chain import Conditional
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Curves, Figure, Figures, Panels, Points
from diffjax.zoo.model import Batch, Model

LEARNED = 2  # the last of the three ways to move


class Target(NamedTuple):
    """p(z), by what its conditionals need: κ, τ² and the standard deviation of either entry."""

    slope: float
    variance: float
    scale: float

    def log_prob(self, z: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        first, second = z[..., 0], z[..., 1]
        error = first - self.slope * second
        constant = LOG_2PI + math.log(self.scale) + 0.5 * math.log(self.variance)
        return -0.5 * ((second / self.scale) ** 2 + error**2 / self.variance) - constant


class Inverses(NamedTuple):
    """r_t(z_i | z_t) = N(κ z_j + τ (w_t · f + b_t), τ² exp(l_t)), f = (z_i - κ z_j)/τ and z_j over its scale.

    f is white under p, and all zero is the inverse of Gibbs sampling in equilibrium.
    """

    weight: Float[Array, "*chains steps 2"]
    bias: Float[Array, "*chains steps"]
    log_variance: Float[Array, "*chains steps"]


class Exact(NamedTuple):
    """kl: KL(q(z_t) ‖ p) in nats at t = 0 .. T; inverses: q(z_{t-1} | z_t), t = 1 .. T, in single precision."""

    kl: Float[np.ndarray, " steps+1"]
    inverses: Inverses


def target(sigmas: Sequence[float]) -> Target:
    first, second = (float(sigma) ** 2 for sigma in sigmas)
    total = first + second
    return Target((second - first) / total, first * second / total, math.sqrt(total) / 2)


def exact(p: Target, a: float, num_steps: int) -> Exact:
    """All there is to know of a chain, in closed form and double precision."""
    precision = np.array([[1, -p.slope], [-p.slope, 1]]) / p.variance
    cov = [p.variance * np.eye(2)]
    weights, log_variances = np.zeros((num_steps, 2)), np.zeros(num_steps)
    for t in range(num_steps):
        i, j = _turn(t)
        step = np.eye(2)
        step[i, i], step[i, j] = a, (1 - a) * p.slope
        new = step @ cov[-1] @ step.T
        new[i, i] += p.variance * (1 - a**2)
        cross = cov[-1][i] @ step.T
        weight = np.linalg.solve(new, cross)  # E[z_i before | z after] = weight · z
        along, across = weight[i], weight[j] - p.slope  # beyond κ z_j
        weights[t] = along, (across + along * p.slope) * p.scale / math.sqrt(p.variance)
        log_variances[t] = math.log((cov[-1][i, i] - weight @ cross) / p.variance)
        cov.append(new)
    ratio = precision @ np.array(cov)
    kl = 0.5 * (np.trace(ratio, axis1=1, axis2=2) - 2 - np.linalg.slogdet(ratio)[1])
    inverses = Inverses(jnp.asarray(weights), jnp.zeros(num_steps), jnp.asarray(log_variances))
    return Exact(kl, inverses)


def best(p: Target, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The a, to 0.005, that brings a chain of 1 .. num_steps steps nearest to p, and KL(q(z_T) ‖ p) there."""
    grid = np.linspace(-0.995, 0.995, 399)
    kl = np.array([exact(p, a, num_steps).kl[1:] for a in grid])
    return grid[kl.argmin(0)], kl.min(0)


def chain(
    p: Target,
    a: Array,
    inverses: Inverses,
    active: Bool[Array, " steps"],
    key: PRNGKeyArray,
    density_a: Array | None = None,
) -> tuple[Float[Array, "2"], Float[Array, ""]]:
    """z_T of one chain and its log-weight, E w = 1.

    Args:
        active: false where a step draws z_i anew from N(0, τ²), the inverse model being the same. Such steps at the
            start leave law and weight as they are without them: chains of any length are one computation, under `vmap`.
        density_a: the a of the transitions from which to take log q, if not `a`.
    """

    def over_relaxed(t: int, a: Array) -> Conditional:
        i, j = _turn(t)

        def transition(x: None, z: Array) -> vi.Coordinate:
            conditional = Normal(jnp.where(active[t], p.slope * z[j], 0.0), jnp.asarray(p.variance))
            return vi.Coordinate(z, i, mcmc.over_relaxed(conditional, z[i], jnp.where(active[t], a, 0.0)))

        return transition

    def inverse(t: int) -> Conditional:
        (i, j), tau = _turn(t), math.sqrt(p.variance)
        weight, bias, log_variance = (leaf[t] for leaf in inverses)

        def law(x: None, z: Array) -> vi.Coordinate:
            centre = p.slope * z[j]
            offset = weight[0] * (z[i] - centre) / tau + weight[1] * z[j] / p.scale + bias
            mean = jnp.where(active[t], centre + tau * offset, 0.0)
            return vi.Coordinate(z, i, Normal(mean, p.variance * jnp.exp(jnp.where(active[t], log_variance, 0.0))))

        return law

    first = Normal(jnp.zeros(2), jnp.full(2, p.variance))
    steps = range(len(active))
    densities = None if density_a is None else (first, [over_relaxed(t, density_a) for t in steps])
    transitions, guesses = [over_relaxed(t, a) for t in steps], [inverse(t) for t in steps]
    return vi.markov_chain(key, None, lambda x, z: p.log_prob(z), first, transitions, guesses, densities)


def make(config: Any) -> Model:
    """The Model of `config.{data, chain}`, see configs/mcvi_bivariate_gaussian.py.

    A batch gives the number of chains, and in figures exact draws of p; `bound` is that of the longest chain with its
    own a, which `sample` draws from; `loss` is the mean over all chains.

    Raises:
        InputError: on data that are no pairs of real numbers, or chains that cannot be.
    """
    _check(config)
    p = target(config.data.sigmas)
    lengths, given, estimator = tuple(config.chain.num_steps), config.chain.over_relaxation, config.chain.estimator
    longest, shape = lengths[-1], (len(lengths), 3, lengths[-1])
    ways = ("Gibbs", f"a = {given}", "learned a")
    active = jnp.arange(longest) >= longest - np.array(lengths)[:, None]

    def init(key: Array) -> Any:
        del key  # Gibbs sampling and its inverse in equilibrium are where to start
        return {
            "atanh_a": jnp.zeros(len(lengths)),
            "inverses": Inverses(jnp.zeros((*shape, 2)), jnp.zeros(shape), jnp.zeros(shape)),
        }

    def all_a(atanh_a: Array) -> Float[Array, "lengths 3"]:
        return jnp.stack([jnp.zeros(len(lengths)), jnp.full(len(lengths), given), jnp.tanh(atanh_a)], axis=1)

    def draw(a: Array, inverses: Inverses, key: Array, density_a: Array) -> tuple[Array, Array]:
        """One chain of each length and way, (lengths, 3, ...), with the same noise."""

        def one(a: Array, inverse: Inverses, active: Array, density_a: Array) -> tuple[Array, Array]:
            return chain(p, a, inverse, active, key, density_a)

        return jax.vmap(jax.vmap(one, (0, 0, None, 0)))(a, inverses, active, density_a)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array) -> Array:
            def log_weights(inverses: Inverses, atanh_a: Array, density: Array) -> Float[Array, "1 lengths 3"]:
                return draw(all_a(atanh_a), inverses, key, all_a(density))[1][None]

            return -vi.objective(log_weights, params["inverses"], params["atanh_a"], estimator).mean()

        return jax.vmap(one)(randomness.each(key, _size(batch)))

    def last(params: Any, keys: Array) -> tuple[Array, Array]:
        a, own = jnp.tanh(params["atanh_a"][-1]), jax.tree.map(lambda leaf: leaf[-1, LEARNED], params["inverses"])
        return jax.vmap(lambda key: chain(p, a, own, active[-1], key))(keys)

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return last(params, randomness.each(key, _size(batch)))[1]

    def sample(params: Any, key: Array, num: int) -> Array:
        return last(params, randomness.each(key, num))[0]

    @jax.jit
    def compare(params: Any, perfect: Inverses, keys: Array) -> tuple[Array, Array, Array]:
        """z_T, log-weights, and those with perfect inverse models on the same chains, (lengths, 3, num, ...)."""

        def one(key: Array) -> tuple[Array, Array, Array]:
            a = all_a(params["atanh_a"])
            return *draw(a, params["inverses"], key, a), draw(a, perfect, key, a)[1]

        return jax.vmap(one, out_axes=2)(keys)

    def measure(params: Any, key: Array) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """The a and KL(q(z_T) ‖ p) in closed form, (lengths, 3), and what chains say."""
        a = np.asarray(all_a(params["atanh_a"]), np.float64)
        known = [[exact(p, value, n) for value in row] for n, row in zip(lengths, a, strict=True)]
        kl = np.array([[e.kl[-1] for e in row] for row in known])
        padded = [jax.tree.map(_late(longest), e.inverses) for row in known for e in row]
        perfect = jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(*shape[:2], *leaves[0].shape), *padded)
        drawn = compare(params, perfect, randomness.each(key, config.evaluation.batch_size))
        return a, kl, tuple(np.asarray(part, np.float64) for part in drawn)

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        """In nats. "below exact": what the learned inverse models lose against perfect ones on the same chains."""
        a, kl, (_, log_w, perfect) = measure(params, key)
        best_a, least = best(p, longest)
        rows = {}
        for n, *columns in zip(lengths, a, kl, log_w, perfect - log_w, strict=True):
            for way, one_a, one_kl, bounds, gaps in zip(ways, *columns, strict=True):
                rows[f"T = {n}, {way}"] = {
                    "exact": -float(one_kl),
                    "learned": float(bounds.mean()),
                    "standard error": _error(bounds),
                    "below exact": float(gaps.mean()),
                    "its error": _error(gaps),
                    "a": float(one_a),
                }
            learned = rows[f"T = {n}, {ways[LEARNED]}"]
            learned |= {"best a": float(best_a[n - 1]), "exact at best a": -float(least[n - 1])}
        return rows

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        _, _, (z, log_w, _) = measure(params, key)
        steps = np.arange(longest + 1)
        gibbs = exact(p, 0.0, longest).kl
        best_kl = np.concatenate([gibbs[:1], best(p, longest)[1]])
        curves = zip(("Gibbs", ways[1], "best a"), (gibbs, exact(p, given, longest).kl, best_kl), strict=True)
        lines = {f"exact, {name}": (steps, -kl) for name, kl in curves}
        # What was learned is a dash at its height: a line would hide the curve that it falls on.
        dashes = (np.array(lengths)[:, None] + [-0.3, 0.3, np.nan]).ravel()
        names = ("learned r, Gibbs", f"learned r, {ways[1]}", "learned r and a")
        lines |= {name: (dashes, np.repeat(h, 3)) for name, h in zip(names, log_w.mean(2).T, strict=True)}
        middle = len(lengths) // 2
        draws = [Points(f"{way}, T = {lengths[middle]}", z[middle, i, : _size(batch)]) for i, way in enumerate(ways)]
        return {
            "bound": Curves(lines, "T, updates of one coordinate", "bound on log Z = 0 [nats]"),
            "draws": Panels([[Points("p", _values(batch)), *draws]], ("z_1", "z_2")),
        }

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"chain": -bound(params, key, batch)}

    def picture(samples: Array) -> Panels:
        return Panels([[Points(f"{ways[LEARNED]}, T = {longest}", samples)]], ("z_1", "z_2"))

    measures = (Bound(terms, unit="nats"), ManySamples(bound), Table(table))
    return Model(init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _turn(t: int) -> tuple[int, int]:
    """The coordinate that step t moves, and the other."""
    return t % 2, 1 - t % 2


def _late(num_steps: int) -> Callable[[Array], Array]:
    """Zeros before what a shorter chain has, so that all end together."""
    return lambda leaf: jnp.concatenate([jnp.zeros((num_steps - len(leaf), *leaf.shape[1:])), leaf])


def _values(batch: Batch) -> Array:
    return batch["image"] if isinstance(batch, dict) else batch


def _size(batch: Batch) -> int:
    return len(_values(batch))


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan


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
    if config.chain.estimator not in get_args(Estimator):
        choices = ", ".join(get_args(Estimator))
        raise InputError(f"chain.estimator must be one of {choices}, not {config.chain.estimator!r}")
