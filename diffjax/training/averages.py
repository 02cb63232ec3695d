"""Power-function averages of the parameters, and averages of any width from stored ones (Karras et al. 2024, "EDM2").

After t steps, the average of exponent γ weights the parameters θ(τ) by a profile p that grows with τ:

    θ̂_γ(t) = ∫ p(τ) θ(τ) dτ,    p(τ) = (γ + 1) τ^γ / t^(γ+1) on (0, t]                              section 3.1
    θ̂_γ(t) = β θ̂_γ(t - 1) + (1 - β) θ_t,    β = (1 - 1/t)^(γ+1),    t = 1, 2, ...

The second line equals the first exactly if θ(τ) = θ_k on (k - 1, k]. At t = 1 it drops the initial parameters. The
width of an average is the standard deviation of its profile, as a fraction of training:

    width² = (γ + 1) / ((γ + 2)² (γ + 3)),    0 < width <= 12^(-1/2)

The largest width is γ = 0, the mean of all steps. Any other profile q is approximated by the profiles p_i of stored
averages, of times t_i and exponents γ_i. Their coefficients x_i come from least squares (section 3.2, appendix C):

    min_x |q - Σ x_i p_i|²,    Σ x_i = 1
    ∫ p_a p_b = (γ_a + 1)(γ_b + 1) / (γ_a + γ_b + 1) (t_a / t_b)^γ_b / t_b,    t_a <= t_b

The constraint on the sum is ours. The paper needs none, because its networks do not depend on the scale of their
weights. Other networks do: without the constraint, a parameter that never moved would come back as Σ x_i times itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from diffjax.errors import InputError

WIDEST = 12**-0.5


def exponent(width: float, name: str = "width") -> float:
    """The γ >= 0 whose average has this width. `name` is the width's name in error messages.

    Raises `InputError` if there is no such γ.
    """
    number = isinstance(width, int | float) and not isinstance(width, bool)
    if not (number and 1e-6 <= width <= WIDEST):
        raise InputError(
            f"{name} = {width!r} must be a share of training, at least 1e-6 and at most {WIDEST:.8f}, which is the mean"
            " of all steps"
        )
    # s = γ + 2 is the largest root of s³ + s² - (s - 1)/width². Newton's steps from above come down to it.
    a = float(width) ** -2
    s, below = np.inf, a**0.5
    while below < s:
        s = below
        below = s - (s * s * (s + 1) - a * (s - 1)) / (s * (3 * s + 2) - a)
    return s - 2


def share_of_step(gamma: float, t: Int[Array, ""] | int) -> Float[Array, ""]:
    """1 - β at step t = 1, 2, ...: the weight of this step's parameters in the new average."""
    return -jnp.expm1((gamma + 1) * jnp.log1p(-1 / jnp.asarray(t)))


def moved(average: Any, params: Any, share: Float[Array, ""]) -> Any:
    """(1 - share) average + share params, for two trees. The result has the dtypes of `average`."""
    return jax.tree.map(
        lambda mean, new: mean + share.astype(mean.dtype) * (new.astype(mean.dtype) - mean), average, params
    )


def inner_product(t_a: Any, gamma_a: Any, t_b: Any, gamma_b: Any) -> Float64[np.ndarray, "..."]:
    """∫ p_a p_b of two profiles; all four broadcast."""
    t_a, gamma_a, t_b, gamma_b = (np.asarray(x, np.float64) for x in (t_a, gamma_a, t_b, gamma_b))
    first, last = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    of_last = np.where(t_a < t_b, gamma_b, gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * (first / last) ** of_last / last


def posthoc_coefficients(
    times: Any, gammas: Any, time: float, gamma: float
) -> tuple[Float64[np.ndarray, " stored"], float]:
    """Coefficients x of stored averages that approximate the average of `gamma` at `time`, and their error.

    times, gammas: (stored,), of the stored averages. The coefficients sum to 1. The error is |q - Σ x_i p_i| / |q|;
    rounding keeps it above about 1e-8. Both are float64. For any path of the parameters and every c,
    |θ̂ - Σ x_i θ̂_i| <= |q - Σ x_i p_i| (Σ_k |θ_k - c|²)^(1/2).
    """
    times, gammas = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    norms = inner_product(times, gammas, times, gammas) ** 0.5
    among = inner_product(times[:, None], gammas[:, None], times, gammas) / np.outer(norms, norms)
    square = inner_product(time, gamma, time, gamma)
    wanted = inner_product(times, gammas, time, gamma) / (norms * square**0.5)
    # All profiles are scaled to length 1: y_i = x_i |p_i| / |q|. The last unknown is the sum's Lagrange multiplier.
    x_of_y = square**0.5 / norms
    system = np.block([[among, x_of_y[:, None]], [x_of_y, np.zeros((1, 1))]])
    y = np.linalg.lstsq(system, np.append(wanted, 1), rcond=None)[0][:-1]
    return y * x_of_y, max(0.0, float(1 - 2 * y @ wanted + y @ among @ y)) ** 0.5
