"""Independent component analysis by score matching (Hyvarinen 2005, section 3.2): four mixed logistic sources.

Cost: seconds. Expected: the inverse of the mixing matrix, up to the order and the sign of its rows.
"""

from ml_collections import ConfigDict

from configs import ebm_gaussian


def get_config() -> ConfigDict:
    config = ebm_gaussian.get_config()
    del config.data.sigmas
    config.data.update(name="mixed_sources", shape=(4,), num_train=100_000)
    config.data.matrix = ((1.0, 0.6, -0.4, 0.2), (-0.5, 1.2, 0.3, 0.4), (0.3, -0.2, 0.8, -0.6), (0.1, 0.5, 0.4, 1.1))
    config.net.name = "ica"
    config.training.update(steps=4000)
    return config
