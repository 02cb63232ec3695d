"""Flow matching on scikit-learn's digits, 8x8: network and budget of configs/digits.py.

Cost: minutes on 2 CPU cores, evaluation by the flow and pictures included. Expected: readable digits; the numbers are
on the results page.
"""

from ml_collections import ConfigDict

from configs import digits, fm_cifar10


def get_config() -> ConfigDict:
    config, small = fm_cifar10.get_config(), digits.get_config()
    config.data, config.net, config.training = small.data, small.net, small.training
    config.training.eval_every = 0
    config.evaluation.update(batch_size=99, num_examples=99)
    return config
