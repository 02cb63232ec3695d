"""A denoising auto-encoder (Vincent et al. 2008) of scikit-learn's digits: the network of configs/ae_mlp_digits.py.

--config.autoencoder.corruption=masking | gaussian --config.autoencoder.noise=0.25

It reconstructs clean images here too, which is what the table's error is of. Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_mlp_digits


def get_config() -> ConfigDict:
    config = ae_mlp_digits.get_config()
    config.autoencoder.update(
        kind="denoising",
        corruption="masking",
        noise=0.25,  # the part of the pixels that is masked; of "gaussian" a standard deviation, white being 1
    )
    return config
