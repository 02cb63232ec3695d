"""The kernels of Sohl-Dickstein et al. 2015 (section 2.5) for p(x) r(x), with r constant over t: Process -> Process.

    perturbed  N(μ + V ∇ log r(μ), V),   B(c d/(c d + (1 - c)(1 - d))),   d = r(1)/(r(0) + r(1))
    tilted     the exact product of a kernel and an observation

The prior, the marginals and the posterior of the process do not change. So `samplers.ancestral` can use the result.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from diffjax import dtypes, eager
from diffjax.conditioning.observations import Observation, check_bits, check_fits, fitting
from diffjax.conditioning.slopes import LogR, bit_log_odds, check_slope, gradient
from diffjax.distributions import Bernoulli, Distribution, Normal
from diffjax.predictions import Prediction
from diffjax.processes import Binomial, Gaussian, Variance
from diffjax.schedules import Schedule


class Multiplied(NamedTuple):
    """A process with another reverse kernel, `multiply(kernel, xt, s)`. Everything else is as in `process`."""

    process: Gaussian | Binomial
    multiply: Callable[[Distribution, Array, ArrayLike], Distribution]

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def prior(self, shape: tuple[int, ...]) -> Distribution:
        return self.process.prior(shape)

    def marginal(self, x0: Array, t: ArrayLike) -> Distribution:
        return self.process.marginal(x0, t)

    def transition(self, xs: Array, s: ArrayLike, t: ArrayLike) -> Distribution:
        return self.process.transition(xs, s, t)

    def posterior(self, x0: Array, xt: Array, s: ArrayLike, t: ArrayLike) -> Distribution:
        return self.process.posterior(x0, xt, s, t)

    def reverse(
        self, prediction: Prediction, xt: Array, s: ArrayLike, t: ArrayLike, variance: Variance = "posterior"
    ) -> Distribution:
        return self.multiply(self.process.reverse(prediction, xt, s, t, variance), xt, s)


def perturbed(process: Gaussian | Binomial, log_r: LogR, probe: Float[Array, "batch *event"]) -> Multiplied:
    """The paper's perturbed kernels (Sohl-Dickstein et al. 2015, table App.1), for any r with a gradient.

    N(μ, V) becomes N(μ + V ∇ log r(μ, s), V). B(c) becomes B(c d/(c d + (1 - c)(1 - d))), d = r(1)/(r(0) + r(1)), with
    the other bits as in x_t. For bits this is exact if r factorises, and otherwise right to first order in the step.

    **Biased** if log_r does not depend on s, as in the paper. For p = N(0, 1) and r = N(1; x, τ² = 1), the samples have
    mean 2/3 and variance 1/3 after many steps. This is the posterior of r²; p r has mean 1/2 and variance 1/2. With
    log_r(x, s) = log E[r(x_0) | x_s = x], which is log r(x) at s = 0, the bias goes to 0 with the length of the steps.

    Args:
        probe: points like those to be sampled. r is tried there once, because a NaN cannot be reported under jit.

    Raises:
        InputError: if at the probe log_r is not of shape (batch,), or if its gradient is not finite (for bits: if its
            value is NaN).
    """
    bits = isinstance(process, Binomial)
    if bits:
        check_bits(probe)
    probe = dtypes.as_float(probe)
    trial = partial(bit_log_odds if bits else gradient, log_r)
    check_slope(eager.once(trial, probe, jnp.full(probe.shape[0], 0.5, probe.dtype)), bits)

    def multiply(kernel: Distribution, xt: Array, s: ArrayLike) -> Distribution:
        s = jnp.broadcast_to(s, xt.shape[:1])
        if isinstance(kernel, Bernoulli):
            return _tilted_bits(kernel, bit_log_odds(log_r, xt, s))
        return Normal(kernel.mean + kernel.variance * gradient(log_r, kernel.mean, s), kernel.variance)

    return Multiplied(process, multiply)


def tilted(process: Gaussian | Binomial, observation: Observation) -> Multiplied:
    """The exact product of every reverse kernel with r, which is constant over t. Precisions, or log-odds, add.

    A known entry is y at every s, as in the paper's inpainting: clean pixels stand next to noisy ones.

    **Biased.** For p = N(0, 1), y = 1 and precision 1, the samples have mean 2/3 and variance 1/3, as in `perturbed`;
    1/2 and 1/2 are right. Inpainting x_2 from a known x_1 = y, of a Gaussian with unit variances and correlation ρ, has
    after many steps of a variance-preserving process

        mean      ρ y √(1 - ρ²) ∫_0^1 √u (1 - ρ² u²)^(-3/2) du     (0.606 y at ρ = 0.8, where 0.8 y is right)
        variance  (1 - ρ²) artanh(ρ)/ρ                              (0.494 at ρ = 0.8, where 0.36 is right)

    Raises:
        InputError: if the observation's shape is not the event's, or if it has other values than 0 and 1 for bits.
    """
    check_fits(process, observation)

    def multiply(kernel: Distribution, xt: Array, s: ArrayLike) -> Distribution:
        y, precision = fitting(observation, xt)
        if isinstance(kernel, Bernoulli):
            return _tilted_bits(kernel, Observation(y, precision).log_odds)
        exact = jnp.isinf(precision)
        ratio = kernel.variance * jnp.where(exact, 0.0, precision)
        gain = jnp.where(exact, 1.0, ratio / (1.0 + ratio))
        return Normal(jnp.where(exact, y, kernel.mean + gain * (y - kernel.mean)), (1.0 - gain) * kernel.variance)

    return Multiplied(process, multiply)


def _tilted_bits(kernel: Bernoulli, log_odds: Array) -> Bernoulli:
    # c d/(c d + (1 - c)(1 - d)) in log-odds. A known bit stays known, whatever the kernel says.
    return Bernoulli(jnp.where(jnp.isinf(log_odds), log_odds, kernel.logits + log_odds))
