"""Hamiltonian variational inference on binarised MNIST, convolutional (Salimans, Kingma & Welling 2015, section 5).

--config.hvi.num_leapfrog=0 | 1 | 2 | 4 | 8 | 16    the paper's rows

Cost: more than configs/hvi_mnist_fc.py, because of the convolutions; not measured.
"""

from ml_collections import ConfigDict

from configs import hvi_mnist_fc


def get_config() -> ConfigDict:
    config = hvi_mnist_fc.get_config()
    config.net = ConfigDict(dict(name="conv", latent=32, channels=(16, 32, 32), units=450, momentum_units=300))
    config.evaluation.update(weighted_examples=50, annealed_weights=8)
    return config
