"""VQ-VAE of sounds, Jukebox in small (Dhariwal et al. 2020): tunes of half a second, made by a formula.

The run writes spectrograms as pictures, and data, reconstructions and samples as .wav files.
--config.data.name=wav --config.data.dir=DIR     your own 8-bit or 16-bit .wav files of data.rate samples a second
Cost: not measured. Expected: not trained yet.
"""

from ml_collections import ConfigDict

from configs import vqvae_cifar10


def get_config() -> ConfigDict:
    config = vqvae_cifar10.get_config()
    config.data.update(name="tunes", shape=(4096, 1), levels=256, train_split="", test_split="")
    config.data.update(num_train=2000, num_test=200)
    config.data.rate = 8000  # samples a second
    config.vq.update(halvings=4, num_codes=256, dim=32)
    config.net.update(features=48, prior="transformer", prior_features=96, prior_depth=3)
    config.evaluation.update(batch_size=20, grid=16)
    config.training.update(
        steps=4000, batch_size=16, learning_rate=1e-3, decay="cosine", ema_decay=0.99, flip=False, eval_every=0
    )
    return config
