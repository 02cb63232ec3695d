"""A denoising auto-encoder (Vincent et al. 2008) of scikit-learn's digits: the network of configs/ae_mlp_digits.py.

--config.autoencoder.corruption=masking | gaussian --config.autoencoder.noise=0.25

In the evaluation the input is clean: the table's error is the reconstruction error of clean images.
Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_mlp_digits


def get_config() -> ConfigDict:
    config = ae_mlp_digits.get_config()
    config.autoencoder.update(
        kind="denoising",
        corruption="masking",
        noise=0.25,  # for "masking" the fraction of pixels masked; for "gaussian" the standard deviation, white = 1
    )
    return config
