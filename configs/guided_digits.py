"""Digits of a class: configs/digits.py's diffusion, guided by a classifier of noisy digits trained beside it.

Cost: ...
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.update(system="guided", base="ddpm")
    config.classifier = ConfigDict(dict(num_classes=10, channels=32, multipliers=(1, 2), num_blocks=1, dropout=0.1))
    config.guidance = ConfigDict(
        dict(
            scale=1.0,  # of ∇ log p(y | x_t); 0: no guidance
            label=-1,  # the class to draw; -1: all in turn
            clip=True,  # x_0 to [-1, 1] after guidance
        )
    )
    config.sampling.update(sampler="ddim", steps=50, eta=0.0)
    config.evaluation.update(batch_size=300, grid=100)  # a multiple of 10: a column of samples is a class
    return config
