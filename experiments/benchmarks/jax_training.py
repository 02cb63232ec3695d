"""Runs one variant of the training step in its own process, so that its peak memory can be measured.

    python -m experiments.benchmarks.jax_training CONFIG BATCH VARIANT        asked by `training.py`

A variant is "as configured", "not donated" or "remat". The worker runs training steps as `experiments.main` does. It
also multiplies matrices, to measure at the same moment the most that the machine can do.
"""

from experiments.platform import set_cpu_flags

set_cpu_flags()

import importlib.util  # noqa: E402  (the flags come first)
import sys  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from diffjax import zoo  # noqa: E402
from diffjax.training.loop import abstract_state  # noqa: E402
from diffjax.training.sharding import parallelize  # noqa: E402
from diffjax.training.state import init_state, optimizer  # noqa: E402
from diffjax.training.step import make_step  # noqa: E402
from experiments.benchmarks.worker import serve  # noqa: E402
from experiments.opened import settings_of  # noqa: E402

SIDE = 2048  # of the matrices


class Worker:
    def __init__(self, path: str, batch: int, variant: str):
        spec = importlib.util.spec_from_file_location("config", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
        config.training.batch_size = batch
        config.net.remat = variant == "remat"
        settings = settings_of(config)
        model, tx = zoo.make(config), optimizer(settings)
        step = make_step(model, tx, settings)
        layout = parallelize(step, "jit", jax.devices()[:1])
        self.key = jax.random.key(0)
        shapes = abstract_state(layout, model, settings)
        self.size = sum(x.size for x in jax.tree.leaves(shapes.params))
        init = jax.jit(lambda key: init_state(key, model, tx))
        self.state = layout.place_state(init(self.key))
        levels = config.data.levels
        image = np.random.default_rng(0).integers(0, levels, (batch, *config.data.shape), np.uint8)
        self.batch = layout.place_batch({"image": image, "label": np.zeros(batch, np.int32)})
        lowered = jax.jit(step, donate_argnums=() if variant == "not donated" else 0).lower(
            self.state, self.key, self.batch
        )
        self.flops = lowered.cost_analysis()["flops"]  # of the program as written: no library call hides any
        self.run = lowered.compile()

    def train(self, batch: int, count: int) -> None:
        for _ in range(count):
            self.state, metrics = self.run(self.state, self.key, self.batch)
        jax.block_until_ready((self.state, metrics))

    def multiply(self, batch: int, count: int) -> None:
        # Made here and dropped at the end, so that the matrices hardly count in the memory of a training step.
        a = jnp.ones((SIDE, SIDE))
        for _ in range(count):
            a = _product(a)
        a.block_until_ready()

    def parameters(self) -> dict[str, float]:
        return {"size": self.size, "flops": self.flops}


@jax.jit
def _product(a: jax.Array) -> jax.Array:
    return (a @ a) * (1 / SIDE)


if __name__ == "__main__":
    serve(Worker(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
