"""Weights of diffusion losses: functions of the log-SNR λ = log(alpha²/sigma²), on the squared error of x_0.

    L = E w(λ_t) ‖x_0 - x̂_0‖²

    constant        1
    snr             e^λ: the eps-loss, `simple`                     (Ho et al. 2020, eq. 14)
    snr_plus_one    e^λ + 1: the v-loss where alpha² + sigma² = 1   (Salimans & Ho 2022, section 4)
    truncated_snr   max(e^λ, 1)                                     (the same)
    min_snr         min(e^λ, γ)                                     (Hang et al. 2023)
    soft_min_snr    e^λ γ/(e^λ + γ)                                 (Crowson et al. 2024)
    p2              e^λ/(k + e^λ)^γ                                 (Choi et al. 2022, eq. 8)
    sigmoid         e^λ/(1 + e^(λ - b))                             (Kingma & Gao 2023)
    edm             e^λ + 1/s²                                      (Karras et al. 2022, table 1)

`losses.weighted` applies a weight to any kind of prediction. The papers write some of these weights for the error of
eps, as w/e^λ, or for the error of v, as w/(e^λ + 1).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid as logistic
from jax.typing import ArrayLike

Weight = Callable[[Array], Array]  # λ -> w


def constant() -> Weight:
    """1: the x0-loss."""
    return jnp.ones_like


def snr() -> Weight:
    """e^λ: the eps-loss (Ho et al. 2020, eq. 14)."""
    return jnp.exp


def snr_plus_one() -> Weight:
    """e^λ + 1: the v-loss where alpha² + sigma² = 1 (Salimans & Ho 2022, section 4)."""
    return lambda log_snr: jnp.exp(log_snr) + 1.0


def truncated_snr(floor: ArrayLike = 1.0) -> Weight:
    """max(e^λ, floor) (Salimans & Ho 2022, section 4)."""
    return lambda log_snr: jnp.maximum(jnp.exp(log_snr), floor)


def min_snr(gamma: ArrayLike = 5.0) -> Weight:
    """min(e^λ, γ) (Hang et al. 2023)."""
    return lambda log_snr: jnp.minimum(jnp.exp(log_snr), gamma)


def soft_min_snr(gamma: ArrayLike = 5.0) -> Weight:
    """e^λ γ/(e^λ + γ): `min_snr` without its corner (Crowson et al. 2024)."""
    return lambda log_snr: jnp.asarray(gamma) * logistic(log_snr - jnp.log(gamma))


def p2(gamma: ArrayLike = 1.0, k: ArrayLike = 1.0) -> Weight:
    """e^λ/(k + e^λ)^γ: (k + e^λ)^-γ on the eps-loss (Choi et al. 2022, eq. 8)."""
    return lambda log_snr: jnp.exp(log_snr) / (k + jnp.exp(log_snr)) ** gamma


def sigmoid(bias: ArrayLike = 0.0) -> Weight:
    """e^λ/(1 + e^(λ - b)): a sigmoid of b - λ on the eps-loss (Kingma & Gao 2023)."""
    return lambda log_snr: jnp.exp(log_snr) * logistic(bias - log_snr)


def edm(sigma_data: ArrayLike) -> Weight:
    """e^λ + 1/s², which is (σ² + s²)/(σ s)² at noise level σ = e^(-λ/2) (Karras et al. 2022, table 1).

    Args:
        sigma_data: s, the standard deviation of the data.
    """
    return lambda log_snr: jnp.exp(log_snr) + 1.0 / sigma_data**2


WEIGHTS: dict[str, Callable[..., Weight]] = {
    "constant": constant,
    "snr": snr,
    "snr_plus_one": snr_plus_one,
    "truncated_snr": truncated_snr,
    "min_snr": min_snr,
    "soft_min_snr": soft_min_snr,
    "p2": p2,
    "sigmoid": sigmoid,
    "edm": edm,
}
