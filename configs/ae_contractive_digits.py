"""A contractive auto-encoder (Rifai et al. 2011) of scikit-learn's digits: the network of configs/ae_mlp_digits.py.

The Jacobian of the code is exact, by forward-mode differentiation. With --config.autoencoder.features="()" the encoder
has one layer as in the paper, and the Jacobian has a closed form. Cost: under a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_mlp_digits


def get_config() -> ConfigDict:
    config = ae_mlp_digits.get_config()
    config.autoencoder.update(kind="contractive", penalty=0.1)
    return config
