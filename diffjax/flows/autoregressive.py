"""Autoregressive flows: the shift and the scale of entry i depend on the entries before it.

    y_i = shift_i(x_1..x_{i-1}) + exp(log_scale_i(x_1..x_{i-1})) x_i,    log det = Σ log_scale_i

Forward takes one pass of the conditioner. The inverse takes dim passes, one after the other. Used directly, this is the
inverse autoregressive flow (IAF, Kingma et al. 2016): sampling is fast, as a variational posterior needs. Exchanged by
`invert`, it is the masked autoregressive flow (MAF, Papamakarios et al. 2017): the density of data is fast.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import eager
from diffjax.dtypes import as_float
from diffjax.flows.elementary import Form, gated, shift_and_log_scale
from diffjax.flows.flow import Flow


def autoregressive(conditioner: Callable[[Array], tuple[Array, Array]], form: Form | None = None) -> Flow:
    """IAF; `invert(autoregressive(...))` is MAF.

    Args:
        conditioner: x (*batch, dim) -> m and s, each (*batch, dim). Their entry i must be a function of x_1..x_{i-1}
            alone, as in `nets.masked.MADE`. This is not checked. The conditioner closes over all else it depends on.
        form: how m and s give shift and log_scale, by default `gated(2.0)`; use `bounded()` for a density model.

    Raises:
        InputError: if m and s are not shaped like x.
    """
    form = form or gated()

    def forward(x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        shift, log_scale = shift_and_log_scale(conditioner, form, x)
        return shift + jnp.exp(log_scale) * x, log_scale.sum(-1)

    def entry_by_entry(y: Array) -> tuple[Array, Array]:
        def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            x, log_det = state
            # Only entry i is used: later entries of x are not solved yet, and their values could grow without bound.
            shift, log_scale = (a[..., i] for a in shift_and_log_scale(conditioner, form, x))
            return x.at[..., i].set((y[..., i] - shift) * jnp.exp(-log_scale)), log_det - log_scale

        start = (jnp.zeros_like(y), jnp.zeros(y.shape[:-1], y.dtype))
        return jax.lax.fori_loop(0, y.shape[-1], step, start)

    def inverse(y: Array) -> tuple[Array, Array]:
        return eager.once(entry_by_entry, as_float(y))

    return Flow(forward, inverse)
