"""The floating-point type that a computation takes.

Arithmetic is never done in 16 bits. A float32 array stays float32, also where jax's default is float64
(`jax_enable_x64`), so that parameters and samples keep the type that they began with. Coefficients follow the array
that they multiply.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

AnyArray = Array | np.ndarray  # for annotations with a shape: jaxtyping takes no union that holds scalar types


def floating(*values: Any) -> np.dtype:
    """The type of these arrays, pytrees of arrays or numbers together.

    float32 takes the place of 16 bits, and jax's default float that of integers. Python numbers adapt to the arrays
    beside them. It also answers under `jax_numpy_dtype_promotion=strict`.
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*jax.tree.leaves(values))
        if not jnp.issubdtype(dtype, jnp.floating):
            return jnp.result_type(float)
        return jnp.promote_types(dtype, jnp.float32)


def as_float(x: Any) -> Array:
    """x as an array of its `floating` type."""
    return jnp.asarray(x, floating(x))


def alike(*values: Any) -> list[Array]:
    """Arrays of the one `floating` type of them all: what a formula of several arrays begins with."""
    dtype = floating(*values)
    return [jnp.asarray(x, dtype) for x in values]
