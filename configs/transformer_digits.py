"""A causal transformer on scikit-learn's 8x8 digits, 17 levels: exact bits/dim, nothing to download.

Cost: minutes on 2 CPU cores. Expected: about 2 bits/dim; the numbers are on the results page.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_digits


def get_config() -> ConfigDict:
    config = pixelcnn_digits.get_config()
    config.net = ConfigDict(dict(name="transformer", width=64, depth=3, heads=4))
    config.training.steps = 800
    return config
