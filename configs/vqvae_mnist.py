"""VQ-VAE-2 of binarised MNIST (Razavi et al. 2019): 14x14 fine and 7x7 coarse codes, a PixelCNN each as prior.

--config.vq.levels=1 --config.vq.halvings=2     VQ-VAE: 7x7 codes
Cost: not measured. Expected: not trained yet.
"""

from ml_collections import ConfigDict

from configs import vqvae_cifar10


def get_config() -> ConfigDict:
    config = vqvae_cifar10.get_config()
    config.data.update(name="mnist", shape=(28, 28, 1), levels=2, binarized=True)
    config.vq.update(levels=2, halvings=1, num_codes=32, dim=16)
    config.net.update(features=32, blocks=1, likelihood="bernoulli", prior_features=24, prior_depth=2)
    config.training.update(
        steps=3000, batch_size=32, learning_rate=1e-3, decay="cosine", ema_decay=0.995, flip=False, eval_every=0
    )
    return config
