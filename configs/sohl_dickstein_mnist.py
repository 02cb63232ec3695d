"""Gaussian diffusion with learned rates on MNIST, as in Sohl-Dickstein et al. 2015, who had the dense path alone.

The paper scores samples by a Parzen window, 317 ± 2.7 bits, as Goodfellow et al. 2014 did; so does this run, besides K,
with fewer samples, which costs some of the score. Here the convolutions of the paper's other experiments stand beside
the dense path: within a budget of minutes they draw better digits (`--config.net.num_layers=0` leaves them out).
Cost: about 10 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import sohl_dickstein_cifar10


def get_config() -> ConfigDict:
    config = sohl_dickstein_cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1), mean=33.32, std=78.57)
    config.net.update(dense_features=256, dense_layers=3, dense_out=4)
    config.evaluation.update(parzen_samples=1000)
    config.training.update(flip=False)
    return config
