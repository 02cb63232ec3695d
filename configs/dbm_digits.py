"""Deep Boltzmann machine of scikit-learn's 8x8 digits, binarised: configs/dbm_mnist.py, made small.

Cost: 40 seconds of a CPU core. Expected: log p(x) at least -23.9 nats.
"""

from ml_collections import ConfigDict

from configs import dbm_mnist


def get_config() -> ConfigDict:
    config = dbm_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), train_split="", test_split="")
    config.dbm.update(hidden=(100, 50))
    config.evaluation.update(batch_size=297, temperatures=5000, parzen_samples=0)
    config.training.update(steps=6000)
    return config
