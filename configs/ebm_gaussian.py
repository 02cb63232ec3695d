"""Score matching of a Gaussian in the plane: the precision matrix without a normaliser (Hyvarinen 2005, section 3.1).

Cost: seconds. Expected: the inverse covariance of the data.
"""

from ml_collections import ConfigDict

from configs import ebm_toy


def get_config() -> ConfigDict:
    config = ebm_toy.get_config()
    config.data = ConfigDict(
        dict(config.data, name="correlated", shape=(2,), levels=0, num_train=50_000, num_test=20_000, sigmas=(0.6, 2.0))
    )
    config.ebm.update(objective="exact", half_width=12.0)
    config.net = ConfigDict(dict(name="gaussian"))
    config.sampling.update(steps=1000, step_size=0.02)
    config.evaluation.update(batch_size=20_000, modes=())
    config.training.update(steps=2000, batch_size=1000, learning_rate=0.02)
    return config
