"""Class-conditional MNIST by classifier-free guidance: configs/mnist.py with the class, see configs/cfg_digits.py.

Cost: as configs/mnist.py. Not run here.
"""

from ml_collections import ConfigDict

from configs import cfg_digits, mnist


def get_config() -> ConfigDict:
    config, guided = mnist.get_config(), cfg_digits.get_config()
    config.net.num_classes = 10
    config.diffusion.label_dropout = 0.1
    config.guidance, config.sampling = guided.guidance, guided.sampling
    config.evaluation.grid = 100
    return config
