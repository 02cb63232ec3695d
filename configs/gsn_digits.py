"""Generative stochastic network of scikit-learn's 8x8 digits, with walkback: configs/gsn_mnist.py, made small.

Cost: 70 seconds of a CPU core. Expected: a Parzen window of 7 nats.
"""

from ml_collections import ConfigDict

from configs import gsn_mnist


def get_config() -> ConfigDict:
    config = gsn_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    config.gsn.update(hidden=(200, 200), corruption=0.3)
    config.evaluation.update(batch_size=300, parzen_samples=1500)
    config.training.update(steps=4000)
    return config
