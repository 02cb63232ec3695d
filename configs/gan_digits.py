"""Generative adversarial network on scikit-learn's 8x8 digits, nothing to download.

Cost: minutes on 2 CPU cores. Expected: readable digits of all classes; the numbers are on the results page.
"""

from ml_collections import ConfigDict

from configs import gan_cifar10


def get_config() -> ConfigDict:
    config = gan_cifar10.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    config.gan.update(latents=32, game="non_saturating", r1=0.1)
    config.net.channels = (96, 48)
    config.evaluation.update(batch_size=500, quality="pixels")
    config.training.update(steps=4000, flip=False, eval_every=1000, save_every=1000, ema_decay=0.995)
    return config
