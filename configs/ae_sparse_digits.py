"""Sparse coding of scikit-learn's digits, its codes predicted by LISTA (Gregor & LeCun 2010).

scikit-learn fits a dictionary of 32 atoms before the first step. Then a network that unrolls a few ISTA steps learns to
predict the lasso's codes. The table shows how close LISTA and ISTA come to these. Cost: under a minute on two CPU
cores.
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
            iterations=3,  # LISTA's
        )
    )
    return config
