"""Hamiltonian variational inference for counts that vary too much (Salimans, Kingma & Welling 2015, section 4.2).

y_i deaths among n_i people at risk in city i: a beta-binomial law of mean m and precision K, unknown both.

    p(y | m, K) = Π_i B(K m + y_i, K(1 - m) + n_i - y_i) / B(K m, K(1 - m)),    p(m, K) ∝ 1 / [m (1 - m) (1 + K)²]

In z = (logit m, log K) the prior is flat × the standard logistic density, since dm = m(1 - m) dlogit m, dK = K dlog K.
Its constant is taken to be 1, and the binomial coefficients are left out: Z is relative to that.

The approximate posterior is one iteration of L leapfrog steps from a Gaussian of full covariance, for several L side by
side; L = 0 is that Gaussian alone. Two dimensions allow quadrature: of log Z = log p(y), and of the density of the last
state z_T, from which the momentum v that it came with is integrated out,

    q(z_T) = ∫ q_0(z_0) q(v' | z_0) dv = E_{v ~ r(. | z_T)} [q_0(z_0) q(v' | z_0) / r(v | z_T)]

with (z_0, v') the leapfrog backwards from (z_T, v), whose Jacobian is 1; by Gauss-Hermite nodes of r. R² is of
this density: that of log-weights, which are of momenta too, would fall short of 1 even where z_T is exact.
"""

from typing import Any, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import randomness, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.linear_algebra import matmul
from diffjax.mcmc.integrators import leapfrog
from diffjax.vi.markov_chain import LogJoint
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Contours, Curves, Figure, Figures, Panels, Points
from diffjax.zoo.markov.counts import log_likelihood
from diffjax.zoo.model import Batch, Model

LABELS = ("logit m", "log K")
NODES = 12  # Gauss-Hermite nodes a dimension
POINTS, NEAR, WIDE = 56, 5.0, 14.0  # of the grids, in units of posterior.scale: of what is drawn, and of log Z


def log_joint(table: Float[Array, "*#batch cities 2"], z: Float[Array, "*#batch 2"]) -> Float[Array, "*batch"]:
    """log p(y, z) in nats."""
    return log_likelihood(table, z) + jax.nn.log_sigmoid(z[..., 1]) + jax.nn.log_sigmoid(-z[..., 1])


class Gaussian(NamedTuple):
    """N(mean, F Fᵀ), with F of the lower triangle of `factor` and the exponential of its diagonal."""

    mean: Float[Array, " dim"]
    factor: Float[Array, "dim dim"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " dim"]:
        return self.mean + matmul(self._lower(), jax.random.normal(key, self.mean.shape))

    def log_prob(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        white = jax.scipy.linalg.solve_triangular(self._lower(), z - self.mean, lower=True)
        return jax.scipy.stats.norm.logpdf(white).sum() - jnp.trace(self.factor)

    def _lower(self) -> Array:
        return jnp.tril(self.factor, -1) + jnp.diag(jnp.exp(jnp.diag(self.factor)))


class Posterior(NamedTuple):
    """The parameters of one approximate posterior: where it starts, and one iteration or, of 0 steps, none."""

    initial: Gaussian
    iterations: tuple[vi.Hamiltonian, ...]


def log_density(
    posterior: Posterior, target: LogJoint, table: Float[Array, "cities 2"], z: Float[Array, "n 2"], num_leapfrog: int
) -> Float[Array, " n"]:
    """log q(z_T) at the points z, in nats: the integral at the head of this file."""
    if not posterior.iterations:
        return jax.vmap(posterior.initial.log_prob)(z)
    (iteration,) = posterior.iterations
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    grid = jnp.stack(jnp.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    log_weights = jnp.log(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    score = jax.grad(target, argnums=1)
    step_size, inverse_mass = jnp.exp(iteration.log_step_size), jnp.exp(iteration.log_inverse_mass)

    def at_node(z: Array, node: Array) -> Array:
        last = cast(Normal, iteration.inverse_momentum(table, z))
        v = last.mean + jnp.sqrt(last.variance) * node
        z0, v0 = leapfrog(lambda z: score(table, z), z, v, -step_size, num_leapfrog, inverse_mass)
        first = posterior.initial.log_prob(z0) + iteration.momentum(table, z0).log_prob(v0).sum()
        return first - last.log_prob(v).sum()

    def at(z: Array) -> Array:
        return jax.nn.logsumexp(log_weights + jax.vmap(lambda node: at_node(z, node))(grid))

    return jax.lax.map(at, z, batch_size=64)


def compare(log_p: np.ndarray, log_q: np.ndarray) -> tuple[float, float]:
    """How near q is to p, from their values on a regular grid that holds all of q; constants do not matter.

    Returns:
        R² = 1 - Var_q[log p - log q] / Var_q[log p] (Salimans & Knowles 2013), 1 if q ∝ p; and E_q[log q - log p],
        KL(q ‖ p) in nats if both are normalised.
    """
    log_p, log_q = np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)
    weights = np.exp(log_q - log_q.max())

    def variance(values: np.ndarray) -> float:
        return np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)

    excess = log_q - log_p
    return float(1 - variance(excess) / variance(log_p)), float(np.average(excess, weights=weights))


class Report(NamedTuple):
    """What the figures and the table show, with a row a number of leapfrog steps; nats."""

    log_z: float
    log_p: Float[np.ndarray, "points points"]  # log p(u | y) on the grid
    log_q: Float[np.ndarray, "rows points points"]
    bounds: Float[np.ndarray, "rows draws"]
    r_squared: Float[np.ndarray, " rows"]
    kl: Float[np.ndarray, " rows"]


def make(config: Any) -> Model:
    """The Model of `config.{data, posterior, evaluation}`, see configs/hvi_beta_binomial.py.

    The params are a `Posterior` a number of leapfrog steps. `loss` is the mean of their -log w; `bound`, `log_weight`
    and `sample` are of that with the most steps. An example of a batch is a table, and asks for one draw given it;
    `sample`, which sees no data, draws given `posterior.table`.

    Raises:
        InputError: on data that are no table of counts, or a posterior that cannot be.
    """
    _check(config)
    setting = config.posterior
    steps = tuple(setting.num_leapfrog)
    location, scale = jnp.asarray(setting.location), jnp.asarray(setting.scale)

    def target(table: Array, u: Array) -> Array:
        """log p(y, u), of z = location + scale u: in such units one step size and rate of learning suit both."""
        return log_joint(table, location + scale * u) + jnp.log(scale).sum()

    def init(key: Array) -> dict[str, Posterior]:
        del key  # there is one place to start from
        start = Gaussian(jnp.zeros(2), jnp.zeros((2, 2)))
        return {str(n): Posterior(start, _iterations(n)) for n in steps}

    def _iterations(n: int) -> tuple[vi.Hamiltonian, ...]:
        return (vi.linear_hamiltonian(2, min(setting.step_size, setting.time / n)),) if n else ()

    def draw(posterior: Posterior, key: Array, table: Array, n: int, densities: Any = None) -> tuple[Array, Array]:
        return vi.hamiltonian(key, table, target, *posterior, max(n, 1), densities)

    def draws(params: Any, key: Array, tables: Array, n: int) -> tuple[Array, Array]:
        """u (batch, 2) and log w (batch,)."""
        keys = randomness.each(key, len(tables))
        return jax.vmap(lambda key, table: draw(params[str(n)], key, table, n))(keys, tables)

    def cost(posterior: Posterior, key: Array, table: Array, n: int) -> Array:
        def log_weights(theta: Any, phi: Any, densities: Any) -> Float[Array, "1"]:
            initial, momenta = phi
            moves = [move._replace(momentum=momentum) for move, momentum in zip(theta, momenta, strict=True)]
            return draw(Posterior(initial, tuple(moves)), key, table, n, densities)[1][None]

        phi = (posterior.initial, [move.momentum for move in posterior.iterations])
        return -vi.objective(log_weights, posterior.iterations, phi, setting.estimator)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array, table: Array) -> Array:
            return jnp.stack([cost(params[str(n)], key, table, n) for n in steps]).mean()

        tables = _tables(batch)
        return jax.vmap(one)(randomness.each(key, len(tables)), tables)

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return draws(params, key, _tables(batch), max(steps))[1]

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"free energy": -bound(params, key, batch)}

    def sample(params: Any, key: Array, num: int) -> Array:
        tables = jnp.broadcast_to(jnp.asarray(setting.table, float), (num, len(setting.table), 2))
        return location + scale * draws(params, key, tables, max(steps))[0]

    near, wide = np.linspace(-NEAR, NEAR, POINTS), np.linspace(-WIDE, WIDE, 4 * POINTS)

    @jax.jit
    def evaluate(params: Any, key: Array, table: Array) -> tuple[Array, ...]:
        grids = [jnp.stack(jnp.meshgrid(axis, axis), -1) for axis in (near, wide)]
        log_p = [jax.lax.map(lambda u: target(table, u), grid) for grid in grids]
        points = grids[0].reshape(-1, 2)
        log_q = [log_density(params[str(n)], target, table, points, n).reshape(log_p[0].shape) for n in steps]
        tables = jnp.broadcast_to(table, (config.evaluation.batch_size, *table.shape))
        return *log_p, jnp.stack(log_q), jnp.stack([draws(params, key, tables, n)[1] for n in steps])

    def report(params: Any, key: Array, batch: Batch) -> Report:
        """Of the first table of the batch."""
        parts = evaluate(params, key, _tables(batch)[0])
        log_p, everywhere, log_q, bounds = (np.asarray(part, np.float64) for part in parts)
        log_z = everywhere.max() + np.log(np.exp(everywhere - everywhere.max()).sum() * (wide[1] - wide[0]) ** 2)
        r_squared, kl = np.transpose([compare(log_p - log_z, q) for q in log_q])
        return Report(float(log_z), log_p - log_z, log_q, bounds, r_squared, kl)

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        """In nats: "below log Z" is the "KL" of what is drawn, and what r does not know of the momentum."""
        found = report(params, key, batch)
        rows = {"exact": {"log Z": found.log_z}}
        for n, bounds, kl, r_squared in zip(steps, found.bounds, found.kl, found.r_squared, strict=True):
            rows[f"{n} leapfrog steps"] = {
                "bound": float(bounds.mean()),
                "standard error": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
                "below log Z": float(found.log_z - bounds.mean()),
                "log mean w": float(found.log_z + np.log(np.exp(bounds - found.log_z).mean())),
                "KL": float(kl),
                "R2": float(r_squared),
            }
        return rows

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        found = report(params, key, batch)
        x, y = np.asarray(location + scale * near[:, None]).T

        def panel(title: str, log_density: np.ndarray) -> Contours:
            return Contours(title, x, y, np.exp(log_density))

        panels = [panel("exact", found.log_p)]
        for n, log_q, bounds, r_squared in zip(steps, found.log_q, found.bounds, found.r_squared, strict=True):
            panels.append(panel(f"L = {n}, {bounds.mean() - found.log_z:.3f} nats, R² {r_squared:.3f}", log_q))
        columns = -(-len(panels) // 2)
        means, at = found.bounds.mean(1), np.array(steps)
        lines = {"bound": (at, means), "log Z": (at, np.full(len(at), found.log_z))}
        return {
            "posterior": Panels([panels[:columns], panels[columns:]], LABELS),
            "bound": Curves(lines, "leapfrog steps", "nats"),
            "r_squared": Curves({"R²": (at, found.r_squared)}, "leapfrog steps", "R²"),
        }

    def picture(samples: Array) -> Panels:
        return Panels([[Points(f"{max(steps)} leapfrog steps", samples)]], LABELS)

    measures = (Bound(terms, unit="nats"), ManySamples(bound), Table(table))
    return Model(init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _check(config: Any) -> None:
    setting, shape = config.posterior, tuple(config.data.shape)
    if len(shape) != 2 or shape[1] != 2:
        raise InputError(f"data.shape must be (cities, 2), rows of deaths and people at risk, not {shape}")
    if np.shape(setting.table)[1:] != (2,):
        raise InputError(f"posterior.table must be rows of deaths and people at risk, not {setting.table!r}")
    steps = setting.num_leapfrog
    whole = isinstance(steps, tuple | list) and all(isinstance(n, int) and n >= 0 for n in steps)
    if not whole or not steps or list(steps) != sorted(set(steps)):
        raise InputError(f"posterior.num_leapfrog must be integers of at least 0 in increasing order, not {steps!r}")
    for name in ("step_size", "time"):
        if not 0 < setting[name] < np.inf:
            raise InputError(f"posterior.{name} must be above 0 and finite, not {setting[name]!r}")
    if len(setting.location) != 2 or len(setting.scale) != 2 or not all(s > 0 for s in setting.scale):
        raise InputError(
            "posterior.location and posterior.scale must be two numbers each, the latter positive, not "
            f"{setting.location!r} and {setting.scale!r}"
        )
    if setting.estimator not in get_args(Estimator):
        choices = ", ".join(get_args(Estimator))
        raise InputError(f"posterior.estimator must be one of {choices}, not {setting.estimator!r}")


def _tables(batch: Batch) -> Array:
    return jnp.asarray(batch["image"] if isinstance(batch, dict) else batch, float)
