"""Sparse coding of scikit-learn's digits, its codes predicted by LISTA (Gregor & LeCun 2010).

A dictionary of 32 atoms, by scikit-learn before the first step; then a network of a few of ISTA's steps learns to give
the codes of the lasso. Its table: how near LISTA comes to them, beside ISTA. Cost: under a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_linear_digits


def get_config() -> ConfigDict:
    config = ae_linear_digits.get_config()
    config.autoencoder = ConfigDict(
        dict(
            kind="sparse",
            code=32,
            sparsity=0.2,  # α of ½ ‖x - z D‖² + α ‖z‖₁, x in [0, 1] less its mean
            iterations=3,  # of LISTA
        )
    )
    return config
