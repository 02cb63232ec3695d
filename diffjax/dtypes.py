"""The floating-point type of a computation.

Arithmetic is never done in 16 bits. A float32 array stays float32, even where jax's default is float64
(`jax_enable_x64`): parameters and samples keep their type. Coefficients take the type of the array that they multiply.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

AnyArray = Array | np.ndarray  # for annotations with a shape: jaxtyping takes no union that holds scalar types


def floating(*values: Any) -> np.dtype:
    """The common floating type of arrays, pytrees of arrays and numbers.

    16-bit types become float32, and integers become jax's default float. Python numbers adapt to the arrays beside
    them. This also works under `jax_numpy_dtype_promotion=strict`.
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
    """The values as arrays of their common `floating` type. A formula with several arrays starts with this."""
    dtype = floating(*values)
    return [jnp.asarray(x, dtype) for x in values]
