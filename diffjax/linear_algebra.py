"""Matrix products in full precision, for the mathematics.

By default, accelerators round the factors of a product to bfloat16 or TensorFloat-32. Networks tolerate that, and keep
the default. A density, a covariance or a known pixel would be accurate only to that many bits.
"""

from functools import partial

import jax
import jax.numpy as jnp

matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
