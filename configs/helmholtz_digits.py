"""Helmholtz machine of scikit-learn's 8x8 digits, binarised: configs/helmholtz_mnist.py, made small.

Cost: 45 seconds of a CPU core. Expected: log p(x) at least -23.8 nats, by wake-sleep -24.6.
"""

from ml_collections import ConfigDict

from configs import helmholtz_mnist


def get_config() -> ConfigDict:
    config = helmholtz_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), train_split="", test_split="")
    config.helmholtz.update(hidden=(50, 20))
    config.evaluation.update(batch_size=297, weighted_examples=297, parzen_samples=0)
    config.training.update(steps=8000)
    return config
