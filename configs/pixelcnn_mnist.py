"""PixelCNN on binarised MNIST (van den Oord et al. 2016), with the streams and blocks of PixelCNN++.

Cost: three hours on one CPU core (1.8 s a step); not trained here. Expected: the paper has 81.30 nats.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_cifar10


def get_config() -> ConfigDict:
    config = pixelcnn_cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1), levels=2, binarized=True)
    config.net.update(features=32, depth=4, mixtures=0)
    config.evaluation.batch_size = 100
    config.training.update(
        steps=6000, batch_size=32, learning_rate=1e-3, decay="cosine", ema_decay=0.995, flip=False, eval_every=0
    )
    return config
