"""The floating type of a computation, in and out of 64-bit mode and strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.dtypes import as_float, floating


@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("wide", [False, True])
def test_floating(wide, promotion):
    default = np.float64 if wide else np.float32
    with jax.enable_x64(wide), jax.numpy_dtype_promotion(promotion):
        single, half, brain = (jnp.zeros(2, kind) for kind in (jnp.float32, jnp.float16, jnp.bfloat16))
        assert floating(2.0) == default
        assert floating(jnp.arange(2)) == floating(True) == default
        assert floating(half) == floating(brain) == floating(half, brain) == np.float32
        assert floating(single) == floating(single, 2.0) == floating(half, single) == np.float32
        assert floating(np.zeros(2)) == floating(single, np.zeros(2)) == default
        assert floating({"a": half, "b": single}) == np.float32
        assert as_float([1, 2]).dtype == default
        assert as_float(brain).dtype == np.float32
