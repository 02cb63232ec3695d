"""Restricted Boltzmann machines (Smolensky 1986): visible units v, hidden bits h, and no edge within a layer.

    bits    E(v, h) = -b·v - c·h - v·W h                                 p(v_i = 1 | h) = sigmoid((b + W h)_i)
    reals   E(v, h) = Σ_i (v_i - b_i)²/2σ_i² - c·h - (v/σ)·W h           p(v_i | h) = N((b + σ W h)_i, σ_i²)

    p(v, h) = exp(-E(v, h))/Z,   p(h_j = 1 | v) = sigmoid((c + v W)_j), with v/σ for v where v is real
    F(v) = -log Σ_h exp(-E(v, h)) = -b·v - Σ_j softplus((c + v W)_j),    p(v) = exp(-F(v))/Z

The parameters are a dict: "weights" W (visible, hidden), "visible" b, "hidden" c. With "log_variance" (visible,), log
σ², the visible units are real numbers (Welling, Rosen-Zvi and Hinton 2004), else bits.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from diffjax import mcmc
from diffjax.distributions import LOG_2PI, Bernoulli, Normal
from diffjax.dtypes import AnyArray, alike, as_float
from diffjax.errors import InputError
from diffjax.linear_algebra import matmul

Params = Mapping[str, Array]
MOST = 24  # bits that are enumerated
CHUNK = 2**12  # states at a time


def init(key: PRNGKeyArray, visible: int, hidden: int, *, real: bool = False, scale: float = 0.01) -> dict[str, Array]:
    """Weights N(0, scale²), biases 0, and with `real` variances 1."""
    weights = scale * jax.random.normal(key, (visible, hidden))
    params = {"weights": weights, "visible": jnp.zeros(visible), "hidden": jnp.zeros(hidden)}
    return params | ({"log_variance": jnp.zeros(visible)} if real else {})


def is_real(params: Params) -> bool:
    """Whether the visible units are real numbers, not bits."""
    return "log_variance" in params


def hidden_given(params: Params, v: Float[AnyArray, "*batch visible"]) -> Bernoulli:
    """p(h | v), of (*batch, hidden)."""
    v, weights, hidden = alike(_checked(params, v), params["weights"], params["hidden"])
    if is_real(params):
        v = v * jnp.exp(-0.5 * params["log_variance"]).astype(v.dtype)
    return Bernoulli(hidden + matmul(v, weights))


def visible_given(params: Params, h: Float[AnyArray, "*batch hidden"]) -> Bernoulli | Normal:
    """p(v | h), of (*batch, visible)."""
    h, weights, visible = alike(h, params["weights"], params["visible"])
    push = matmul(h, weights.T)
    if is_real(params):
        variance = jnp.exp(params["log_variance"]).astype(push.dtype)
        return Normal(visible + jnp.sqrt(variance) * push, jnp.broadcast_to(variance, push.shape))
    return Bernoulli(visible + push)


def energy(
    params: Params, v: Float[AnyArray, "*batch visible"], h: Float[AnyArray, "*batch hidden"]
) -> Float[Array, "*batch"]:
    """E(v, h)."""
    logits = hidden_given(params, v).logits
    return _alone(params, v) - (as_float(h) * logits).sum(-1)


def free_energy(params: Params, v: Float[AnyArray, "*batch visible"]) -> Float[Array, "*batch"]:
    """F(v) in nats: log p(v) = -F(v) - log Z.

    Raises:
        InputError: if v has another number of units.
    """
    hidden = jax.nn.softplus(hidden_given(params, v).logits).sum(-1)
    return _alone(params, v) - hidden


def kernel(params: Params) -> mcmc.Kernel:
    """Block Gibbs on positions (h (hidden,), v (visible,)): a step draws h given v, then v given h."""
    return mcmc.block_gibbs([lambda z: hidden_given(params, z[1]), lambda z: visible_given(params, z[0])])


def log_partition_by_enumeration(params: Params) -> Float[Array, ""]:
    """log Z in nats, exact: a sum over all states of the smaller layer, of the hidden one where v is real.

    Raises:
        InputError: if that layer has more than 24 units.
    """
    visible, hidden = params["weights"].shape
    over_hidden = is_real(params) or hidden <= visible
    num = hidden if over_hidden else visible
    if num > MOST:
        raise InputError(f"the smaller layer has {num} units, too many to enumerate: estimate log Z by annealing")
    log_f = _log_sum_over_visible if over_hidden else (lambda params, v: -free_energy(params, v))
    chunk = min(CHUNK, 2**num)

    def part(first: Array) -> Array:
        states = (first + jnp.arange(chunk))[:, None] >> jnp.arange(num) & 1
        return jax.nn.logsumexp(log_f(params, states.astype(params["weights"].dtype)))

    return jax.nn.logsumexp(jax.lax.map(part, chunk * jnp.arange(2**num // chunk)))


def check_visible(params: Params, v: Array) -> None:
    """Raises `InputError` if visible units that are bits have other values, where these are no tracers."""
    concrete = not isinstance(v, jax.core.Tracer)
    if concrete and not is_real(params) and not np.isin(np.asarray(v), (0, 1)).all():
        raise InputError(
            "v has values other than 0 and 1, and the visible units are bits: binarise v, or give the machine a"
            " log_variance, so that its visible units are real"
        )


def _checked(params: Params, v: AnyArray) -> AnyArray:
    visible = params["weights"].shape[0]
    if jnp.shape(v)[-1:] != (visible,):
        raise InputError(f"v must be of shape (..., {visible}), one number for each visible unit, not {jnp.shape(v)}")
    return v


def _alone(params: Params, v: AnyArray) -> Array:
    """What the visible units cost without the hidden ones."""
    v, visible = alike(v, params["visible"])
    if is_real(params):
        return 0.5 * ((v - visible) ** 2 * jnp.exp(-params["log_variance"]).astype(v.dtype)).sum(-1)
    return -(v * visible).sum(-1)


def _log_sum_over_visible(params: Params, h: Array) -> Array:
    """log Σ_v exp(-E(v, h)), or the integral over v."""
    bias = (h * params["hidden"]).sum(-1)
    visible, push = params["visible"], matmul(h, params["weights"].T)
    if is_real(params):
        normaliser = 0.5 * (LOG_2PI + params["log_variance"]).sum()
        return bias + normaliser + (0.5 * push**2 + push * visible * jnp.exp(-0.5 * params["log_variance"])).sum(-1)
    return bias + jax.nn.softplus(visible + push).sum(-1)
