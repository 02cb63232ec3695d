"""Variational diffusion on CIFAR-10 (Kingma et al. 2021): continuous time, learned noise schedule, Fourier features.

The paper's U-Net: 32 residual blocks down and 33 up, all at 32x32 and of 128 channels, attention only in the middle.
What differs: the schedule begins at the paper's ends and they are learned; the levels lie 2/255 apart and not 2/256;
Adam's second decay is 0.999 and not 0.99; the network's position is of the first ends, whatever they become.
Cost: the paper's 10,000,000 steps of batch 128; weeks on one accelerator. It does not train on a CPU.
Expected (the paper's): 2.65 bits/dim, and 2.49 with its augmentation, which is not here.
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
    config.net.update(multipliers=(1,), num_blocks=32, attention=(), dropout=0.1)
    config.net.fourier = (2, 1)  # lengths of the waves beside the input, in levels: sin(2^n π x), n = 7, 8; () for none
    del config.sampling.eta
    config.sampling.update(sampler="ancestral", steps=1000)
    config.evaluation.update(num_terms=100)  # times drawn for each example
    config.training.update(steps=10_000_000, warmup=1000, weight_decay=0.01, flip=False)
    return config
