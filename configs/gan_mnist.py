"""Generative adversarial network on MNIST, 28x28 (Goodfellow et al. 2014).

--config.evaluation.parzen_samples=10000 is the paper's measure, in nats.
Cost: an hour on 2 CPU cores. Expected: the paper reports 225 ± 2 nats by the Parzen window.
"""

from ml_collections import ConfigDict

from configs import gan_cifar10


def get_config() -> ConfigDict:
    config = gan_cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1))
    config.gan.update(latents=64, game="non_saturating", r1=1.0)
    config.net.channels = (96, 64, 32)
    config.evaluation.update(batch_size=500, parzen_samples=0)
    config.training.update(steps=6000, flip=False, eval_every=1000, save_every=1000, ema_decay=0.995)
    return config
