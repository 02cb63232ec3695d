"""Variational diffusion (Kingma et al. 2021) on scikit-learn's digits, 8x8: network and budget of configs/digits.py.

The Fourier features have wavelengths of two levels and of one. They are sin(2^n π x), n = 3 and 4, because the 17
levels are 2^-3 apart.

Cost: minutes on 2 CPU cores, evaluation and pictures included.
Expected: readable digits, and 1.84 bits/dim on the test images; log2(17) = 4.09 is the entropy of a uniform pixel.
"""

from ml_collections import ConfigDict

from configs import digits, vdm_cifar10


def get_config() -> ConfigDict:
    config, small = vdm_cifar10.get_config(), digits.get_config()
    config.data, config.training = small.data, small.training
    # At the start the noise is a sixth of the distance between levels, as in the paper: gamma_0 = 2 log(1/8/6).
    config.diffusion.update(ends=(-7.7, 5.0), clip=True)
    config.net.update(channels=32, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    config.sampling.steps = 250
    config.evaluation.update(batch_size=99, conditioning=False)
    return config
