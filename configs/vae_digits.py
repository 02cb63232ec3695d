"""Variational auto-encoder of scikit-learn's 8x8 digits, nothing to download: configs/vae_mnist.py, made small.

The likelihood is over the 17 grey levels, so its bits/dim compare with those of configs/digits.py.
Cost: half a minute on two CPU cores. Expected: a bound near 1.96 bits/dim.
--config.net.likelihood=gaussian learns a variance for each pixel, on digits made continuous. --config.net.name=conv has
convolutions.
"""

from ml_collections import ConfigDict

from configs import vae_mnist


def get_config() -> ConfigDict:
    config = vae_mnist.get_config()
    del config.data.binarized
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    config.net.update(
        latents=(16,), features=((128, 128),), channels=(16, 32), units=128, likelihood="discretized_logistic"
    )
    config.evaluation.update(batch_size=300, num_weights=1000, weighted_examples=297, annealed_weights=0)
    config.training.update(steps=3000, learning_rate=1e-3)
    return config
