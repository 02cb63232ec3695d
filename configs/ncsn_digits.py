"""NCSNv2 (Song & Ermon 2020) on scikit-learn's digits, 8x8: its five techniques, in minutes.

sigma_max = 9.6, 22 levels and ε = 9.4e-5 are computed from the digits (`diffjax.sde.noise_levels`). sigma_min = 0.02 is
half of what dequantisation adds. Cost: minutes on 2 CPU cores. Expected: readable digits, and 1.997 ± 0.026 bits/dim by
the probability flow of 99 examples.
"""

from ml_collections import ConfigDict

from configs import digits, ncsn_cifar10


def get_config() -> ConfigDict:
    config, images = ncsn_cifar10.get_config(), digits.get_config()
    config.data, config.training = images.data, images.training
    config.net.update(channels=32, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    config.sde.update(sigma_min=0.02, sigma_max=9.6, levels=22)
    config.sampling.update(steps=22, step_size=9.4e-5, conditioning_steps=200)
    config.evaluation.update(batch_size=99, flow_examples=99, conditioning=False)
    return config
