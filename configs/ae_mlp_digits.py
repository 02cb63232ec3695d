"""A plain auto-encoder of scikit-learn's digits, 64-128-32-128-64 with tied weights: the baseline auto-encoder.

Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_linear_digits


def get_config() -> ConfigDict:
    config = ae_linear_digits.get_config()
    config.autoencoder = ConfigDict(dict(kind="mlp", code=32, features=(128,)))
    return config
