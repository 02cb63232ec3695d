"""Draws samples of a model on all devices of a mesh."""

import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax.mesh import divided, gather, here, share


class Sampler:
    """`model.sample`, compiled once for `num` samples. Each device draws its share of them.

    `images_per_second` is the speed of the latest call, without compilation.
    """

    def __init__(self, model: Any, num: int, mesh: Mesh):
        many = share(mesh, num)

        def sample(params: Any, key: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(model.sample(gather(mesh, params), key, many), divided(mesh))

        self._sample = jax.jit(sample)
        self._mesh = mesh
        self.num = num
        self._compiled: Any = None
        self.images_per_second = float("nan")

    def __call__(self, params: Any, key: jax.Array) -> np.ndarray:
        """(num, *event)."""
        self._compiled = self._compiled or self._sample.lower(params, key).compile()
        began = time.perf_counter()
        images = np.asarray(here(self._mesh, self._compiled(params, key)))[: self.num]
        self.images_per_second = self.num / (time.perf_counter() - began)
        return images
