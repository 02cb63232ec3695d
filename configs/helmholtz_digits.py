"""Helmholtz machine of scikit-learn's 8x8 digits, binarised: configs/helmholtz_mnist.py, made small.

Cost: a minute on a CPU core. Expected: see experiments/results/README.md.
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
