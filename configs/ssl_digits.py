"""Semi-supervised learning with deep generative models on scikit-learn's 1797 handwritten digits, 8x8: no download.

As configs/ssl_mnist.py, smaller: 50 of 1500 training images keep their labels.
Cost: about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ssl_mnist


def get_config() -> ConfigDict:
    config = ssl_mnist.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="", labelled=50)
    config.ssl.alpha = 1.0
    config.net.update(latent=16, features=(200, 200), style=16, units=(200,))
    config.evaluation.update(batch_size=297)
    config.training.update(steps=3_000, batch_size=100, learning_rate=1e-3, ema_decay=0.99, save_every=0)
    return config
