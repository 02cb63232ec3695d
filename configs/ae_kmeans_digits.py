"""k-means on scikit-learn's digits as an auto-encoder: a one-hot code of 32 units, decoded by a matrix of centres.

scikit-learn finds the centres, where the gradient of the loss is 0: there is nothing left to train, and no steps. The
code is one of 32 numbers, 5 bits an image, where the other kinds have 32 real ones. Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_linear_digits


def get_config() -> ConfigDict:
    config = ae_linear_digits.get_config()
    config.autoencoder.kind = "kmeans"
    config.training.steps = 0
    return config
