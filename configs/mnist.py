"""DDPM on MNIST, 28x28: CIFAR-10's recipe on a smaller network (28 halves twice, so three resolutions).

The paper has no MNIST; width 64 is our choice. Cost: a tenth of CIFAR-10's FLOP a step (with 128 channels it would be
about 0.4); minutes on an accelerator, about a day on two CPU cores. Flips are off: a mirrored 2 is not a digit.
Expected: digits that pass for handwriting; bits/dim is not in the paper.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1))
    config.net.update(channels=64, multipliers=(1, 2, 2), attention=(14,))
    config.training.update(steps=50_000, flip=False, ema_decay=0.999, warmup=1000, keep_every=10_000)
    return config
