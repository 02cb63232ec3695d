"""Gaussian diffusion with learned rates on MNIST, as in Sohl-Dickstein et al. 2015: the dense path alone.

The paper scores samples by a Parzen window, 317 ± 2.7 bits, as Goodfellow et al. 2014 did; so does this run, besides K,
with fewer samples, which costs some of the score.
Cost: about 12 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_cifar10


def get_config() -> ConfigDict:
    config = sohl_dickstein_cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1), mean=33.32, std=78.57)
    config.net.update(num_layers=0, dense_features=512, dense_layers=4, dense_out=8, pixel_features=32)
    config.evaluation.update(parzen_samples=1000)
    config.training.update(flip=False, steps=10_000, batch_size=128, log_every=200, eval_every=5000, save_every=2500)
    return config
