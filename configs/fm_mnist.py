"""Flow matching on MNIST, 28x28: the recipe of configs/fm_cifar10.py on the network of configs/mnist.py.

Cost: as configs/mnist.py, minutes on an accelerator, about a day on two CPU cores. No paper reports numbers for it.
"""

from ml_collections import ConfigDict

from configs import fm_cifar10, mnist


def get_config() -> ConfigDict:
    config, small = fm_cifar10.get_config(), mnist.get_config()
    config.data, config.net, config.training = small.data, small.net, small.training
    return config
