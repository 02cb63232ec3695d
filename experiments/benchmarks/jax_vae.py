"""The worker in jax: the training step of `configs/vae_mnist.py`, as `experiments.main` runs it."""

from experiments.platform import set_cpu_flags

set_cpu_flags()

import jax  # noqa: E402  (the flags come first)
import numpy as np  # noqa: E402

from configs.vae_mnist import get_config  # noqa: E402
from diffjax import zoo  # noqa: E402
from diffjax.training.config import training_config  # noqa: E402
from diffjax.training.sharding import parallelize  # noqa: E402
from diffjax.training.state import init_state, optimizer  # noqa: E402
from diffjax.training.step import make_step  # noqa: E402
from experiments.benchmarks.worker import serve  # noqa: E402


class Worker:
    def __init__(self):
        config = get_config()
        training = training_config(config.training)
        model, tx = zoo.make(config), optimizer(training)
        self.key = jax.random.key(0)
        self.layout = parallelize(make_step(model, tx, training), devices=jax.devices()[:1])
        self.state = self.layout.place_state(jax.jit(lambda key: init_state(key, model, tx))(self.key))

    def train(self, batch: int, count: int) -> None:
        image = np.random.default_rng(0).integers(0, 2, (batch, 28, 28, 1), np.uint8)
        for _ in range(count):
            self.state, metrics = self.layout.run(self.state, self.key, self.layout.place_batch({"image": image}))
        jax.block_until_ready((self.state, metrics))

    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))


if __name__ == "__main__":
    serve(Worker())
