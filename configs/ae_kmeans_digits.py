"""k-means on scikit-learn's digits as an auto-encoder: a one-hot code of 32 units, decoded by a matrix of centres.

scikit-learn finds the centres. There the gradient of the loss is 0, so there are no training steps. The code is one of
32 indices, 5 bits an image; the other auto-encoders have 32 real numbers. Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_linear_digits


def get_config() -> ConfigDict:
    config = ae_linear_digits.get_config()
    config.autoencoder.kind = "kmeans"
    config.training.steps = 0
    return config
