"""NADE on binarised MNIST (Larochelle & Murray 2011).

--config.net.name=deep_nade --config.net.features='(500,500)' --config.ar.orders=16 --config.ar.order=random
                                                  all orders in one network (Uria et al. 2014), 16 in the mixture
Cost: a quarter of an hour on one CPU core. Expected: 89.85 ± 0.23 nats; the paper has 88.33.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_mnist


def get_config() -> ConfigDict:
    config = pixelcnn_mnist.get_config()
    config.net = ConfigDict(dict(name="nade", units=500, features=(500, 500)))
    config.training.update(steps=3000, batch_size=100)
    return config
