"""Flow matching from noisy digits to clean ones, scikit-learn's digits of 8x8: a flow that starts from data.

x_1 = x_0 + 0.7 N(0, I) is paired with its x_0. The first step of the flow goes towards E[x_0 | x_1], which is blurred.
Its end point is a sharp digit.

Cost: minutes on 2 CPU cores. Expected: a larger error than that of the mean E[x_0 | x_1]: the price of sharp images.
"""

from ml_collections import ConfigDict

from configs import fm_digits


def get_config() -> ConfigDict:
    config = fm_digits.get_config()
    config.matching.update(source="noisy", source_noise=0.7, coupling="paired")
    return config
