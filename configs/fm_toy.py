"""Flow matching of eight Gaussians on a circle, from noise: straight paths, an exact likelihood, few steps.

Cost: a minute on 2 CPU cores. Expected: -log p near the entropy of the mixture, the mean of the true -log p.
"""

import math

from ml_collections import ConfigDict

from configs import base, fm_cifar10


def get_config() -> ConfigDict:
    config, images = base.get_config(), fm_cifar10.get_config()
    config.system = "flow_matching"
    config.data.update(
        name="mixture",
        shape=(2,),
        levels=0,
        num_train=100_000,
        num_test=2_000,
        weights=8 * (0.125,),
        means=tuple((2.0 * math.cos(i * math.pi / 4), 2.0 * math.sin(i * math.pi / 4)) for i in range(8)),
        std=0.2,
        noise=0.1,  # for data.name="two_moons", another set in the plane
    )
    config.matching, config.sampling = images.matching, images.sampling
    del config.sampling.conditioning_steps  # for images only
    config.net = ConfigDict(dict(name="mlp", features=(128, 128, 128)))
    config.evaluation.update(batch_size=1000, grid=2000, modes=config.data.means)
    config.training.update(steps=4000, batch_size=512)
    return config
