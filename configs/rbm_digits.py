"""Restricted Boltzmann machine of scikit-learn's 8x8 digits, binarised: configs/rbm_mnist.py, made small.

Cost: half a minute of a CPU core. Expected: log p(x) near -24.0 nats.
"""

from ml_collections import ConfigDict

from configs import rbm_mnist


def get_config() -> ConfigDict:
    config = rbm_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), train_split="", test_split="")
    config.rbm.update(hidden=100)
    config.evaluation.update(batch_size=297, temperatures=5000, parzen_samples=0)
    config.training.update(steps=6000)
    return config
