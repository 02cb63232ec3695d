"""NADE on binarised MNIST (Larochelle & Murray 2011).

--config.net.name=deep_nade --config.net.features='(500,500)' --config.ar.orders=16 --config.ar.order=random
                                                  all orders in one network (Uria et al. 2014), 16 in the mixture
Cost: tens of minutes on 2 CPU cores. Expected: the paper has 88.33 nats.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_mnist


def get_config() -> ConfigDict:
    config = pixelcnn_mnist.get_config()
    config.net = ConfigDict(dict(name="nade", units=500, features=(500, 500)))
    config.training.update(steps=6000, batch_size=100)
    return config
