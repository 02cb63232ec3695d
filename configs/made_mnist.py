"""MADE on binarised MNIST (Germain et al. 2015): masked dense layers, one order or a mixture of several.

--config.ar.order=random --config.ar.orders=32    the paper's 32 masks
Cost: six minutes on one CPU core. Expected: 93.97 ± 0.25 nats; the paper has 88.40 with one mask, 86.64 with 32.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_mnist


def get_config() -> ConfigDict:
    config = pixelcnn_mnist.get_config()
    config.net = ConfigDict(dict(name="made", features=(2000,), direct=False))
    config.training.update(steps=3000, batch_size=100)
    return config
