"""Class-conditional CIFAR-10 by classifier-free guidance: configs/cifar10.py with the class, see configs/cfg_digits.py.

Cost: as configs/cifar10.py, days on an accelerator. Not run here.
"""

from ml_collections import ConfigDict

from configs import cfg_digits, cifar10


def get_config() -> ConfigDict:
    config, guided = cifar10.get_config(), cfg_digits.get_config()
    config.net.num_classes = 10
    config.diffusion.label_dropout = 0.1
    config.guidance, config.sampling = guided.guidance, guided.sampling
    config.evaluation.grid = 100
    config.training.flip = True
    return config
