"""Gaussian diffusion with learned rates on dead leaves, as in Sohl-Dickstein et al. 2015 (figure 4).

An image is made of overlapping discs with scale-invariant radii, each with its own grey. 8-bit greys are dequantised.
Cost: about 10 minutes on 2 CPU cores. The paper's K is 1.489 bits a pixel; MCGSM (Theis et al. 2012) has 1.244.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import sohl_dickstein_cifar10


def get_config() -> ConfigDict:
    config = sohl_dickstein_cifar10.get_config()
    config.data.update(name="dead_leaves", shape=(32, 32, 1), train_split="", test_split="")
    # A run computes them from the training examples and writes them to its config.json.
    config.data.mean, config.data.std = placeholder(float), placeholder(float)
    config.data.num_train, config.data.num_test = 5000, 1000
    config.data.radii = (1.5, 16.0)  # pixels
    config.net.update(dense_layers=0)
    config.diffusion.first_beta = 1e-4  # flat leaves reward finer noise
    return config
