"""Matrix products in full precision, for the mathematics.

Accelerators round the factors of a product to bfloat16 or TensorFloat-32 unless they are asked not to. A network bears
that; a density, a covariance or a known pixel would be known to as many bits. Networks keep the accelerator's default.
"""

from functools import partial

import jax
import jax.numpy as jnp

matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
