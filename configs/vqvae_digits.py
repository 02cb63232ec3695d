"""VQ-VAE of scikit-learn's 8x8 digits, nothing to download: 4x4 codes and a PixelCNN as their prior.

Cost: not measured for all 3000 steps; 600 took 8 minutes on a crowded machine. Expected: after 600 steps 2.586
bits/dim; more steps are not measured yet.
"""

from ml_collections import ConfigDict

from configs import vqvae_cifar10


def get_config() -> ConfigDict:
    config = vqvae_cifar10.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    config.vq.update(halvings=1, num_codes=64, dim=16)
    config.net.update(features=48, prior_features=32, prior_depth=2)
    config.evaluation.update(batch_size=99)
    config.training.update(
        steps=3000,
        batch_size=64,
        learning_rate=1e-3,
        decay="cosine",
        ema_decay=0.99,
        flip=False,
        log_every=250,
        eval_every=0,
        save_every=1000,
    )
    return config
