"""MADE on scikit-learn's 8x8 digits, 17 levels: exact bits/dim, nothing to download.

--config.ar.order=random --config.ar.orders=8     a mixture of eight orders
Cost: a minute on 2 CPU cores. Expected: the numbers are on the results page.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_digits


def get_config() -> ConfigDict:
    config = pixelcnn_digits.get_config()
    config.net = ConfigDict(dict(name="made", features=(200,), direct=False))
    config.training.steps = 600
    return config
