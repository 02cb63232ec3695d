"""Black-box variational inference of a Normal's mean and precision, with all closed forms.

    x_i ~ N(μ, 1/τ),  μ ~ N(m_0, 1/(λ_0 τ)),  τ ~ Gamma(a_0, b_0)                       (Bishop 2006, section 10.1.3)

The posterior has the same form, with λ_N = λ_0 + N, m_N = (λ_0 m_0 + N x̄)/λ_N, a_N = a_0 + N/2 and
b_N = b_0 + ½ Σ (x_i - x̄)² + ½ λ_0 N (x̄ - m_0)²/λ_N. The evidence is

    log p(x) = log Γ(a_N)/Γ(a_0) + a_0 log b_0 - a_N log b_N + ½ log λ_0/λ_N - ½ N log 2π

For q(μ) q(τ), coordinate ascent alternates q(μ) = N(m_N, 1/(λ_N E τ)) and q(τ) = Gamma(a_0 + (N + 1)/2, b), with b =
b_0 + ½ E_μ[Σ (x_i - μ)² + λ_0 (μ - m_0)²]. Every gradient estimator should reach its limit with the same family. Each
has its own posterior. They are trained side by side.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import digamma
from jaxtyping import Float

from diffjax import randomness, vi
from diffjax.distributions import LOG_2PI, Gamma, Normal
from diffjax.errors import InputError
from diffjax.evaluation.bound import Bound
from diffjax.evaluation.many_samples import ManySamples
from diffjax.evaluation.table import Table
from diffjax.vi.gradients import GradientEstimator
from diffjax.zoo.figures import Contours, Figure, Figures, Panels, Points
from diffjax.zoo.model import Batch, Model, image_of

LABELS = ("mean", "precision")
POINTS = 80  # to a side of the pictures
UPDATES = 30  # of coordinate ascent, each of which leaves an error 1/(2 a_0 + N + 1) times what it was


class NormalGamma(NamedTuple):
    """N(μ; location, 1/(strength τ)) Gamma(τ; concentration, rate)."""

    location: Any
    strength: Any
    concentration: Any
    rate: Any

    def log_prob(self, z: dict[str, Array]) -> Float[Array, ""]:
        mean, precision = z["mean"], z["precision"]
        given = Normal(self.location, 1.0 / (self.strength * precision)).log_prob(mean)
        return given + Gamma(self.concentration, self.rate).log_prob(precision)


class Params(NamedTuple):
    """The parameters of one q(μ) q(τ) = Normal × Gamma, all real."""

    mean: Float[Array, ""]
    log_std: Float[Array, ""]
    log_concentration: Float[Array, ""]
    log_rate: Float[Array, ""]


def family(params: Params) -> vi.Factorised:
    gamma = Gamma(jnp.exp(params.log_concentration), jnp.exp(params.log_rate))
    return vi.Factorised({"mean": Normal(params.mean, jnp.exp(2.0 * params.log_std)), "precision": gamma})


def log_joint(prior: NormalGamma, x: Float[Array, " n"], z: dict[str, Array]) -> Float[Array, ""]:
    """log p(x, μ, τ) in nats."""
    return Normal(z["mean"], 1.0 / z["precision"]).log_prob(x).sum() + prior.log_prob(z)


def posterior(prior: NormalGamma, x: Float[Array, " n"]) -> NormalGamma:
    """p(μ, τ | x)."""
    n, average = len(x), x.mean()
    strength = prior.strength + n
    location = (prior.strength * prior.location + n * average) / strength
    between = prior.strength * n * (average - prior.location) ** 2 / strength
    rate = prior.rate + 0.5 * (((x - average) ** 2).sum() + between)
    return NormalGamma(location, strength, prior.concentration + 0.5 * n, rate)


def log_evidence(prior: NormalGamma, x: Float[Array, " n"]) -> Float[Array, ""]:
    """log p(x) in nats: the joint divided by the posterior, at any μ and τ."""
    z = {"mean": x.mean(), "precision": jnp.ones(())}
    return log_joint(prior, x, z) - posterior(prior, x).log_prob(z)


def coordinate_ascent(prior: NormalGamma, x: Float[Array, " n"], num_updates: int = UPDATES) -> Params:
    """The best q(μ) q(τ), by alternating updates from E τ under the prior (Bishop 2006, eq. 10.26 to 10.30)."""
    exact = posterior(prior, x)
    concentration = prior.concentration + 0.5 * (len(x) + 1)
    expected = jnp.asarray(prior.concentration / prior.rate)
    for _ in range(num_updates):
        variance = 1.0 / (exact.strength * expected)
        rate = prior.rate + 0.5 * _squares(prior, x, exact.location, variance)
        expected = concentration / rate
    return Params(*map(jnp.asarray, (exact.location, 0.5 * jnp.log(variance), jnp.log(concentration), jnp.log(rate))))


def elbo(prior: NormalGamma, x: Float[Array, " n"], params: Params) -> Float[Array, ""]:
    """E_q[log p(x, μ, τ)] plus the entropy of q, in closed form and nats."""
    laws = family(params).laws
    mean, precision = laws["mean"], laws["precision"]
    log_precision = digamma(precision.concentration) - jnp.log(precision.rate)
    gaussians = 0.5 * ((len(x) + 1) * (log_precision - LOG_2PI) + jnp.log(prior.strength))
    gaussians -= 0.5 * precision.mean * _squares(prior, x, mean.mean, mean.variance)
    return gaussians + mean.entropy() - precision.kl(Gamma(prior.concentration, prior.rate))


def _squares(prior: NormalGamma, x: Array, mean: Array, variance: Array) -> Float[Array, ""]:
    """E[Σ (x_i - μ)² + λ_0 (μ - m_0)²] for μ ~ N(mean, variance)."""
    at_mean = ((x - mean) ** 2).sum() + prior.strength * (mean - prior.location) ** 2
    return at_mean + (len(x) + prior.strength) * variance


def black_box(
    prior: NormalGamma,
    estimators: Sequence[GradientEstimator],
    *,
    num_draws: int = 10,
    baseline: float = 0.0,
    num_gradients: int = 1000,
) -> Model:
    """One factorised posterior for each gradient estimator, trained side by side.

    The params have one `Params` for each estimator. An example of a batch is all observations x, and asks for
    `num_draws` draws given them. `loss` is the mean of the -ELBOs. `bound` and `sample` use the last estimator.

    Args:
        baseline: of the score estimators, see `vi.expectation`.
        num_gradients: the number of gradients for the variances of the table.
    """
    last = estimators[-1]

    def init(key: Array) -> dict[str, Params]:
        del key  # there is one place to start from
        return {name: Params(*jnp.zeros((4, 1))[..., 0]) for name in estimators}

    def values(params: Params, key: Array, x: Array, estimator: GradientEstimator) -> Float[Array, " num"]:
        """Draws of the ELBO. Their derivative is the estimator."""

        def target(z: Any) -> Array:
            return log_joint(prior, x, z)

        return vi.expectation(target, family, params, key, num_draws, estimator, vi.sampled_entropy, baseline)

    def loss(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array, x: Array) -> Array:
            return -jnp.stack([values(params[name], key, x, name).mean() for name in estimators]).mean()

        examples = _examples(batch)
        return jax.vmap(one)(randomness.each(key, len(examples)), examples)

    def bound(params: Any, key: Array, batch: Batch) -> Array:
        def one(key: Array, x: Array) -> Array:
            z = family(params[last]).sample(key)
            return log_joint(prior, x, z) - family(params[last]).log_prob(z)

        examples = _examples(batch)
        return jax.vmap(one)(randomness.each(key, len(examples)), examples)

    def terms(params: Any, key: Array, batch: Batch) -> dict[str, Array]:
        return {"free energy": -bound(params, key, batch)}

    def sample(params: Any, key: Array, num: int) -> Array:
        z = jax.vmap(family(params[last]).sample)(randomness.each(key, num))
        return jnp.stack([z["mean"], z["precision"]], axis=-1)

    @jax.jit
    def spread(best: Params, key: Array, x: Array) -> dict[str, Array]:
        """The summed variance of each estimator's gradient at the end of coordinate ascent."""

        def one(key: Array, name: GradientEstimator) -> Array:
            return jnp.stack(jax.grad(lambda params: values(params, key, x, name).mean())(best))

        keys = jax.random.split(key, num_gradients)
        return {name: jax.vmap(lambda key, name=name: one(key, name))(keys).var(0).sum() for name in estimators}

    def table(params: Any, key: Array, batch: Batch) -> dict[str, dict[str, float]]:
        x = _examples(batch)[0]
        best = coordinate_ascent(prior, x)
        in_order: dict[str, Params] = {name: params[name] for name in estimators}  # jit sorts the names
        return _table(prior, x, best, in_order, spread(best, key, x))

    def figures(params: Any, key: Array, batch: Batch) -> dict[str, Figure]:
        in_order: dict[str, Params] = {name: params[name] for name in estimators}  # jit sorts the names
        return {"posterior": _densities(prior, _examples(batch)[0], in_order)}

    def picture(samples: Array) -> Panels:
        return Panels([[Points(last.replace("_", " "), samples)]], LABELS)

    measures = (Bound(terms, unit="nats"), ManySamples(bound), Table(table))
    return Model(init, loss, bound, sample, measures=measures, figures=Figures(picture, figures))


def _table(
    prior: NormalGamma, x: Array, best: Params, params: dict[str, Params], variances: Mapping[Any, Array]
) -> dict[str, dict[str, float]]:
    """In nats, in closed form. "gradient variance" is that of one example's gradient at the best q(μ) q(τ)."""
    evidence, limit = float(log_evidence(prior, x)), float(elbo(prior, x, best))
    rows = {
        "exact": {"log evidence": evidence},
        "coordinate ascent": {"bound": limit, "below log evidence": evidence - limit},
    }
    for name, learned in params.items():
        reached = float(elbo(prior, x, learned))
        rows[name] = {
            "bound": reached,
            "below coordinate ascent": limit - reached,
            "below log evidence": evidence - reached,
            "gradient variance": float(variances[name]),
        }
    return rows


def _densities(prior: NormalGamma, x: Array, params: dict[str, Params]) -> Panels:
    """The exact posterior, that of coordinate ascent, and the learned ones."""
    exact, best = posterior(prior, x), coordinate_ascent(prior, x)
    gamma = Gamma(exact.concentration, exact.rate)
    wide = 5.0 / math.sqrt(exact.strength * gamma.mean)
    means = jnp.linspace(exact.location - wide, exact.location + wide, POINTS)
    precisions = jnp.linspace(1e-3, gamma.mean + 5.0 * jnp.sqrt(gamma.variance), POINTS)
    grid = dict(zip(LABELS, jnp.meshgrid(means, precisions), strict=True))

    def panel(title: str, law: Any) -> Contours:
        density = jnp.exp(jax.vmap(jax.vmap(law.log_prob))(grid))
        return Contours(title, np.asarray(means), np.asarray(precisions), np.asarray(density))

    limit = elbo(prior, x, best)
    panels = [panel("exact", exact), panel("coordinate ascent", family(best))]
    for name, learned in params.items():
        below = float(limit - elbo(prior, x, learned))
        panels.append(panel(f"{name.replace('_', ' ')}, {below:.4f} nats", family(learned)))
    columns = -(-len(panels) // 2)
    return Panels([panels[:columns], panels[columns:]], LABELS)


def _examples(batch: Batch) -> Array:
    return jnp.asarray(image_of(batch), float)


def make(config: Any) -> Model:
    """The Model of `config.{data, posterior, evaluation}`, see configs/bbvi_normal_gamma.py.

    Raises:
        InputError: on data that are no list of numbers, or a value of the posterior out of range.
    """
    _check(config)
    setting = config.posterior
    return black_box(
        NormalGamma(*(float(value) for value in setting.prior)),
        tuple(setting.estimators),
        num_draws=setting.num_draws,
        baseline=setting.baseline,
        num_gradients=config.evaluation.batch_size,
    )


def _check(config: Any) -> None:
    setting, shape = config.posterior, tuple(config.data.shape)
    if len(shape) != 1 or config.data.levels:
        raise InputError(
            f"data.shape and data.levels must be (n,) and 0, n real numbers, not {shape} and {config.data.levels}"
        )
    if len(setting.prior) != 4 or not all(value > 0 for value in setting.prior[1:]):
        raise InputError(
            "posterior.prior must be a location and three positive numbers, strength, concentration and rate, not"
            f" {setting.prior!r}"
        )
    unknown = [name for name in setting.estimators if name not in get_args(GradientEstimator)]
    if unknown or not setting.estimators:
        choices = ", ".join(get_args(GradientEstimator))
        raise InputError(f"posterior.estimators must be some of {choices}, not {setting.estimators!r}")
    if not isinstance(setting.num_draws, int) or setting.num_draws < 2:
        raise InputError(f"posterior.num_draws must be a whole number of at least 2, not {setting.num_draws!r}")
