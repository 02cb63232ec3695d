"""NCSNv2 on MNIST: configs/ncsn_cifar10.py with noise levels from the digits and a smaller network.

sigma_max = 31.5, 104 levels and ε = 1.1e-5 are computed from the digits, as described there.
Cost: a step takes seconds on 2 CPU cores; not trained to the end here. For the smaller network of configs/sde_mnist.py:
--config.net.channels=32 --config.net.num_blocks=1 --config.net.attention="(7,)" --config.net.dropout=0.0.
"""

from ml_collections import ConfigDict

from configs import mnist, ncsn_cifar10


def get_config() -> ConfigDict:
    config, images = ncsn_cifar10.get_config(), mnist.get_config()
    config.data = images.data
    config.net.update(channels=64, multipliers=(1, 2, 2), attention=(14,))
    config.sde.update(sigma_max=31.5, levels=104)
    config.sampling.update(steps=104, step_size=1.1e-5)
    config.training.update(steps=50_000, flip=False, keep_every=10_000)
    return config
