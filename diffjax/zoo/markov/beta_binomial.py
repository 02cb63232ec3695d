"""Hamiltonian variational inference for overdispersed counts (Salimans, Kingma & Welling 2015, section 4.2).

There are y_i deaths among n_i people at risk in city i. They are beta-binomial with unknown mean m and precision K.

    p(y | m, K) = Π_i B(K m + y_i, K(1 - m) + n_i - y_i) / B(K m, K(1 - m)),    p(m, K) ∝ 1 / [m (1 - m) (1 + K)²]

In z = (logit m, log K) the prior is flat × the standard logistic density, since dm = m(1 - m) dlogit m, dK = K dlog K.
Its constant is 1 here, and the binomial coefficients are left out. Z is relative to that.

The approximate posterior is one iteration of L leapfrog steps from a Gaussian with full covariance, for several L side
by side. L = 0 is that Gaussian alone. In two dimensions quadrature gives log Z = log p(y), and the density of the last
state z_T after integrating over its momentum v:

    q(z_T) = ∫ q_0(z_0) q(v' | z_0) dv = E_{v ~ r(. | z_T)} [q_0(z_0) q(v' | z_0) / r(v | z_T)]

Here (z_0, v') is the leapfrog backwards from (z_T, v), with Jacobian 1. The integral uses Gauss-Hermite nodes of r. R²
is that of this density. Log-weights also depend on momenta, so their R² would be below 1 even if z_T were exact.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import randomness, registry, vi
from diffjax.distributions import Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.linear_algebra import matmul
from diffjax.mcmc.integrators import leapfrog
from diffjax.vi.markov_chain import LogJoint
from diffjax.vi.objectives import Estimator
from diffjax.zoo.figures import Figure, Figures, Panels, Points
from diffjax.zoo.markov import beta_binomial_report as shown
from diffjax.zoo.markov.beta_binomial_report import LABELS, NEAR_AXIS, WIDE_AXIS, Report, report_of
from diffjax.zoo.markov.counts import log_likelihood
from diffjax.zoo.model import Batch, Model, image_of

NODES = 12  # Gauss-Hermite nodes a dimension


def log_joint(table: Float[Array, "*#batch cities 2"], z: Float[Array, "*#batch 2"]) -> Float[Array, "*batch"]:
    """log p(y, z) in nats."""
    return log_likelihood(table, z) + jax.nn.log_sigmoid(z[..., 1]) + jax.nn.log_sigmoid(-z[..., 1])


class Gaussian(NamedTuple):
    """N(mean, F Fᵀ). F is the lower triangle of `factor`, with the exponential of its diagonal."""

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
    """The parameters of one approximate posterior: its start, and one iteration, or none for 0 steps."""

    initial: Gaussian
    iterations: tuple[vi.Hamiltonian, ...]


def log_density(
    posterior: Posterior, target: LogJoint, table: Float[Array, "cities 2"], z: Float[Array, "n 2"], num_leapfrog: int
) -> Float[Array, " n"]:
    """log q(z_T) at the points z, in nats: the integral in the docstring of this module."""
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


class Setting(NamedTuple):
    """The start of the approximate posteriors, in z = location + scale u, and the length of their dynamics.

    num_leapfrog: increasing numbers of leapfrog steps, one for each posterior.
    step_size, time: of the initial leapfrog. A step is not longer than time / number.
    """

    num_leapfrog: tuple[int, ...]
    location: tuple[float, float]
    scale: tuple[float, float]
    step_size: float
    time: float

    def target(self, table: Array, u: Array) -> Array:
        """log p(y, u). In such units one step size and rate of learning suit both entries."""
        location, scale = jnp.asarray(self.location), jnp.asarray(self.scale)
        return log_joint(table, location + scale * u) + jnp.log(scale).sum()

    def init(self, key: Array) -> dict[str, Posterior]:
        del key  # there is one place to start from
        start = Gaussian(jnp.zeros(2), jnp.zeros((2, 2)))
        return {str(n): Posterior(start, self._iterations(n)) for n in self.num_leapfrog}

    def _iterations(self, n: int) -> tuple[vi.Hamiltonian, ...]:
        return (vi.linear_hamiltonian(2, min(self.step_size, self.time / n)),) if n else ()

    def draw(self, posterior: Posterior, key: Array, table: Array, n: int, densities: Any = None) -> Any:
        """u (2,) and log w (), given one table, by n leapfrog steps."""
        return vi.hamiltonian(key, table, self.target, *posterior, max(n, 1), densities)

    def draws(self, params: Any, key: Array, tables: Array, n: int) -> tuple[Array, Array]:
        """u (batch, 2) and log w (batch,)."""
        keys = randomness.each(key, len(tables))
        return jax.vmap(lambda key, table: self.draw(params[str(n)], key, table, n))(keys, tables)

    def evaluate(self, params: Any, key: Array, table: Array, num: int) -> tuple[Array, ...]:
        """log p on two grids, log q on the near grid, and `num` log-weights, for each number of leapfrog steps."""
        grids = [jnp.stack(jnp.meshgrid(axis, axis), -1) for axis in (NEAR_AXIS, WIDE_AXIS)]
        log_p = [jax.lax.map(lambda u: self.target(table, u), grid) for grid in grids]
        points, steps = grids[0].reshape(-1, 2), self.num_leapfrog
        log_q = [log_density(params[str(n)], self.target, table, points, n).reshape(log_p[0].shape) for n in steps]
        tables = jnp.broadcast_to(table, (num, *table.shape))
        return *log_p, jnp.stack(log_q), jnp.stack([self.draws(params, key, tables, n)[1] for n in steps])


def beta_binomial(
    table: Sequence[Sequence[int]],
    setting: Setting,
    *,
    estimator: Estimator = "reparameterized",
    num_draws: int = 1000,
) -> Model:
    """Hamiltonian variational inference of (logit m, log K), for several numbers of leapfrog steps side by side.

    The params have one `Posterior` for each number of leapfrog steps. `loss` is the mean of their -log w. `bound` and
    `sample` use the one with the most steps. An example of a batch is a table, and asks for one draw given it.

    Args:
        table: (cities, 2), deaths and people at risk. `sample` draws from the posterior given this table.
        estimator: of the gradient, see `vi.objective`.
        num_draws: the number of log-weights for every number of the table.
    """
    steps, most = setting.num_leapfrog, max(setting.num_leapfrog)
    evaluate = jax.jit(setting.evaluate, static_argnums=3)

    def cost(posterior: Posterior, key: Array, table: Array, n: int) -> Array:
        def log_weights(theta: Any, phi: Any, densities: Any) -> Float[Array, "1"]:
            initial, momenta = phi
            moves = [move._replace(momentum=momentum) for move, momentum in zip(theta, momenta, strict=True)]
            return setting.draw(Posterior(initial, tuple(moves)), key, table, n, densities)[1][None]

        phi = (posterior.initial, [move.momentum for move in posterior.iterations])
        return -vi.objective(log_weights, posterior.iterations, phi, estimator)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array, table: Array) -> Array:
            return jnp.stack([cost(params[str(n)], key, table, n) for n in steps]).mean()

        tables = _tables(batch)
        return jax.vmap(one)(randomness.each(key, len(tables)), tables)

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        return setting.draws(params, key, _tables(batch), most)[1]

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"free energy": -bound(params, key, batch)}

    def sample(params: Any, key: Array, num: int) -> Array:
        tables = jnp.broadcast_to(jnp.asarray(table, float), (num, len(table), 2))
        location, scale = jnp.asarray(setting.location), jnp.asarray(setting.scale)
        return location + scale * setting.draws(params, key, tables, most)[0]

    def report(params: Any, key: Array, batch: Batch) -> Report:
        """The report for the first table of the batch."""
        return report_of(evaluate(params, key, _tables(batch)[0], num_draws))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        location, scale = jnp.asarray(setting.location), jnp.asarray(setting.scale)
        x, y = np.asarray(location + scale * NEAR_AXIS[:, None]).T
        return shown.figures(steps, (x, y), report(params, key, batch))

    def picture(samples: Array) -> Panels:
        return Panels([[Points(f"{most} leapfrog steps", samples)]], LABELS)

    measures = (
        Bound(terms, unit="nats"),
        ManySamples(bound),
        Table(lambda params, key, batch: shown.table(steps, report(params, key, batch))),
    )
    return Model(setting.init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _tables(batch: Batch) -> Array:
    return jnp.asarray(image_of(batch), float)


def make(config: Any) -> Model:
    """The Model of `config.{data, posterior, evaluation}`, see configs/hvi_beta_binomial.py.

    Raises:
        InputError: on data that are no table of counts, or a value of the posterior out of range.
    """
    _check(config)
    posterior = config.posterior
    setting = Setting(
        tuple(posterior.num_leapfrog),
        tuple(posterior.location),
        tuple(posterior.scale),
        posterior.step_size,
        posterior.time,
    )
    num_draws = config.evaluation.batch_size
    return beta_binomial(posterior.table, setting, estimator=posterior.estimator, num_draws=num_draws)


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
    registry.choose("posterior.estimator", setting.estimator, get_args(Estimator))
