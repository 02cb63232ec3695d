"""PixelCNN++ on CIFAR-10 (Salimans et al. 2017), without its down- and up-sampling.

Cost: for an accelerator: the gradient of one image takes 5 s on one CPU core. Not trained here.
Expected: the paper has 2.92 bits/dim.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "autoregressive"
    config.data.update(name="cifar10", shape=(32, 32, 3), levels=256, train_split="train", test_split="test")
    config.ar = ConfigDict(
        dict(
            order="raster",  # raster | random | a permutation of the places
            orders=1,  # orders of a mixture
        )
    )
    config.net = ConfigDict(
        dict(
            name="pixel_cnn",  # pixel_cnn | transformer | made | nade | deep_nade
            features=160,  # of each stream
            depth=15,  # blocks of each half
            mixtures=10,  # logistics; 0: a free number for each class
        )
    )
    config.evaluation.update(batch_size=16)
    config.training.update(
        steps=200_000,
        batch_size=32,
        learning_rate=1e-3,
        ema_decay=0.9995,
        flip=True,
        eval_every=10_000,
        save_every=5_000,
    )
    return config
