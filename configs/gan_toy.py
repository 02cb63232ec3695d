"""Generative adversarial network of eight Gaussians on a circle: which of the modes does it find?

--config.gan.game=wasserstein --config.gan.penalty=10 --config.gan.r1=0     the critic's estimate of a distance
--config.gan.r1=0                                                           without a penalty: modes are lost
Cost: a minute on 2 CPU cores. Expected: all eight modes. configs/fm_toy.py has the same data.
"""

from ml_collections import ConfigDict

from configs import fm_toy, gan_cifar10


def get_config() -> ConfigDict:
    config = gan_cifar10.get_config()
    config.data = fm_toy.get_config().data
    config.gan.update(latents=8, game="non_saturating", r1=0.1)
    config.net = ConfigDict(dict(features=(128, 128, 128)))
    config.evaluation.update(batch_size=1000, grid=2000, modes=config.data.means)
    config.training.update(steps=4000, batch_size=512, flip=False, eval_every=0, save_every=1000, ema_decay=0.995)
    return config
