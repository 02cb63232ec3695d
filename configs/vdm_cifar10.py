"""Variational diffusion on CIFAR-10 (Kingma et al. 2021): continuous time, learned noise schedule, Fourier features.

It has the paper's U-Net: 32 residual blocks down and 33 up, all at 32x32 and with 128 channels, and attention only in
the middle. There are three differences. Levels, and so the waves, are 2/255 apart, not 2/256. Adam's second decay is
0.999, not 0.99. The gradient's norm is clipped.
Cost: the paper's 10,000,000 steps of batch 128, on an accelerator.
Expected (the paper's): 2.65 bits/dim; 2.49 with its augmentation, which is not here.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    config.system = "vdm"
    config.diffusion = ConfigDict(
        dict(
            ends=(-13.3, 5.0),  # -log SNR at t = 0 and at t = 1, where the schedule begins
            learn_ends=True,
            units=1024,  # of the schedule's monotone network
            clip=False,  # x_0 to [-1, 1], in samples and in the bound
        )
    )
    del config.net.num_classes
    config.net.update(multipliers=(1,), num_blocks=32, attention=())
    config.net.fourier = (2, 1)  # wavelengths, in levels, of the Fourier features: the paper's n = 7, 8; () for none
    config.evaluation.num_terms = 100  # times drawn for each example, because the continuous-time bound is an integral
    config.training.update(steps=10_000_000, warmup=100, weight_decay=0.01, flip=False)
    return config
