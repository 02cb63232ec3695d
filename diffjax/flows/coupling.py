"""Coupling layers: some entries stay as they are and determine how the others change (Dinh et al. 2015, 2017).

    additive (NICE)     y = x + (1 - mask) t(mask x)                             det = 1
    affine (RealNVP)    y = mask x + (1 - mask)(x exp(s(mask x)) + t(mask x))    log det = Σ (1 - mask) s

Any network can be the conditioner, because it is never inverted. Successive layers must keep different entries.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from diffjax.dtypes import as_float
from diffjax.errors import InputError
from diffjax.flows.elementary import Form, bounded, shift_and_log_scale
from diffjax.flows.flow import Flow, check_dim, concrete


def checkerboard(shape: Sequence[int], parity: int) -> Bool[np.ndarray, " dim"]:
    """Every other entry of an array of this shape, raveled. For (dim,): those of even index if parity is 0, else odd.

    Raises:
        InputError: if there are fewer than two entries, or the parity is not 0 or 1.
    """
    _check_parity(int(np.prod(shape)), parity)
    return (np.indices(shape).sum(0) % 2 == parity).ravel()


def halves(dim: int, parity: int) -> Bool[np.ndarray, " dim"]:
    """The first half, rounded down, if parity is 0; otherwise the other entries.

    Raises:
        InputError: if there are fewer than two entries, or the parity is not 0 or 1.
    """
    _check_parity(dim, parity)
    return (np.arange(dim) < dim // 2) == (parity == 0)


def additive_coupling(
    mask: Bool[Array | np.ndarray, " dim"],
    conditioner: Callable[[Float[Array, "*batch dim"]], Float[Array, "*batch dim"]],
) -> Flow:
    """x -> x + t(mask x) where mask is false. x does not change where mask is true.

    Args:
        mask: true where x does not change, `checkerboard` or `halves`.
        conditioner: t, a function of vectors with zeros where mask is false. Its values where mask is true are ignored.

    Raises:
        InputError: if the mask is true nowhere or everywhere, or shapes do not fit.
    """
    _check_mask(mask)

    def shift(x: Array) -> Array:
        check_dim("this coupling's mask", len(mask), x)
        t = conditioner(jnp.where(mask, x, 0.0))
        if t.shape != x.shape:
            raise InputError(f"conditioner must give an array of x's shape {x.shape}, not {t.shape}")
        return jnp.where(mask, 0.0, t).astype(x.dtype)

    def move(x: Array, sign: int) -> tuple[Array, Array]:
        x = as_float(x)
        return x + sign * shift(x), jnp.zeros(x.shape[:-1], x.dtype)

    return Flow(lambda x: move(x, 1), lambda y: move(y, -1))


def affine_coupling(
    mask: Bool[Array | np.ndarray, " dim"],
    conditioner: Callable[[Array], tuple[Array, Array]],
    form: Form | None = None,
) -> Flow:
    """x -> shift + exp(log_scale) x where mask is false. Both depend on the entries where mask is true.

    Args:
        mask: true where x does not change, `checkerboard` or `halves`.
        conditioner: from vectors with zeros where mask is false to m and s, each (*batch, dim).
        form: the meaning of m and s, by default `bounded(2.0)`.

    Raises:
        InputError: if the mask is true nowhere or everywhere, or shapes do not fit.
    """
    _check_mask(mask)
    form = form or bounded()

    def parameters(x: Array) -> tuple[Array, Array]:
        check_dim("this coupling's mask", len(mask), x)
        shift, log_scale = shift_and_log_scale(conditioner, form, jnp.where(mask, x, 0.0))
        return jnp.where(mask, 0.0, shift), jnp.where(mask, 0.0, log_scale)

    def forward(x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        shift, log_scale = parameters(x)
        return shift + jnp.exp(log_scale) * x, log_scale.sum(-1)

    def inverse(y: Array) -> tuple[Array, Array]:
        y = as_float(y)
        shift, log_scale = parameters(y)
        return (y - shift) * jnp.exp(-log_scale), -log_scale.sum(-1)

    return Flow(forward, inverse)


def _check_parity(dim: int, parity: int) -> None:
    if dim < 2:
        raise InputError(f"a coupling needs at least 2 entries, one to keep and one to move, not {dim}")
    if parity not in (0, 1):
        raise InputError(f"parity must be 0 or 1, not {parity!r}")


def _check_mask(mask: Array | np.ndarray) -> None:
    if np.ndim(mask) != 1:
        raise InputError(f"mask must be a vector, not of shape {np.shape(mask)}")
    if concrete(mask) and (np.all(mask) or not np.any(mask)):
        raise InputError(f"mask must be true (x is kept) and false (x is moved) somewhere, not {np.asarray(mask)}")
