"""Over-relaxed Gibbs sampling of a bivariate Gaussian, with its closed forms.

    p(z) ∝ exp[-(z_1 - z_2)²/(2σ_1²) - (z_1 + z_2)²/(2σ_2²)]
    p(z_i | z_j) = N(κ z_j, τ²),    κ = (σ_2² - σ_1²)/(σ_2² + σ_1²),    τ² = σ_1² σ_2²/(σ_1² + σ_2²)

A chain starts from the best factorised Gaussian, N(0, τ² I), and moves its two entries in turn by Adler's
over-relaxation. a = 0 is Gibbs sampling:

    z_i' ~ N(κ z_j + a (z_i - κ z_j), τ² (1 - a²))

Every q(z_t) is then a Gaussian N(0, C_t). The best inverse model q(z_{t-1} | z_t) is linear with constant variance
(Salimans, Kingma & Welling 2015, section 2.4).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

from diffjax import mcmc, vi
from diffjax.distributions import LOG_2PI, Normal
from diffjax.vi.markov_chain import Conditional


class Target(NamedTuple):
    """p(z), by κ, τ² and the standard deviation of each entry."""

    slope: float
    variance: float
    scale: float

    def log_prob(self, z: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        first, second = z[..., 0], z[..., 1]
        error = first - self.slope * second
        constant = LOG_2PI + math.log(self.scale) + 0.5 * math.log(self.variance)
        return -0.5 * ((second / self.scale) ** 2 + error**2 / self.variance) - constant


class Inverses(NamedTuple):
    """r_t(z_i | z_t) = N(κ z_j + τ (w_t · f + b_t), τ² exp(l_t)). f has (z_i - κ z_j)/τ and z_j over its scale.

    f is white under p. If all numbers are zero, it is the inverse of Gibbs sampling in equilibrium.
    """

    weight: Float[Array, "*chains steps 2"]
    bias: Float[Array, "*chains steps"]
    log_variance: Float[Array, "*chains steps"]


class Exact(NamedTuple):
    """kl: KL(q(z_t) ‖ p) in nats at t = 0 .. T. inverses: q(z_{t-1} | z_t) at t = 1 .. T, in single precision."""

    kl: Float[np.ndarray, " steps+1"]
    inverses: Inverses


def target(sigmas: Sequence[float]) -> Target:
    first, second = (float(sigma) ** 2 for sigma in sigmas)
    total = first + second
    return Target((second - first) / total, first * second / total, math.sqrt(total) / 2)


def exact(p: Target, a: float, num_steps: int) -> Exact:
    """The closed forms of a chain, in double precision."""
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
    """The best a, to 0.005, for chains of 1 .. num_steps steps, and their KL(q(z_T) ‖ p)."""
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
        active: false if a step only draws z_i again from N(0, τ²), with the same inverse model. Such steps at the start
            do not change distribution or weight. So chains of all lengths are one computation, under `vmap`.
        density_a: the a of the transitions for log q, if it is not `a`.
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


def _turn(t: int) -> tuple[int, int]:
    """The coordinate that step t moves, and the other one."""
    return t % 2, 1 - t % 2
