"""PixelCNN++ on scikit-learn's 8x8 digits, 17 levels: exact bits/dim, nothing to download.

Cost: minutes on 2 CPU cores. Expected: below 2 bits/dim; the numbers are on the results page.
"""

from ml_collections import ConfigDict

from configs import pixelcnn_cifar10


def get_config() -> ConfigDict:
    config = pixelcnn_cifar10.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    config.net.update(features=32, depth=2, mixtures=5)
    config.evaluation.batch_size = 99
    config.training.update(
        steps=500,  # 1500 examples are soon learned by heart
        weight_decay=1.0,
        batch_size=64,
        learning_rate=2e-3,
        decay="cosine",
        ema_decay=0.99,
        flip=False,
        log_every=100,
        eval_every=0,
        save_every=500,
    )
    return config
