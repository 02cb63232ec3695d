"""Deep belief network of scikit-learn's 8x8 digits, binarised: configs/dbn_mnist.py, made small.

Cost: a minute of a CPU core. Expected: log p(x) at least -23.7 nats.
"""

from ml_collections import ConfigDict

from configs import dbn_mnist


def get_config() -> ConfigDict:
    config = dbn_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), train_split="", test_split="")
    config.dbn.update(hidden=(100, 100), stack_steps=4000)
    config.evaluation.update(batch_size=297, temperatures=5000, parzen_samples=0)
    config.training.update(steps=8000)
    return config
