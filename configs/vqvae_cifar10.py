"""VQ-VAE on CIFAR-10 (van den Oord et al. 2017): 8x8 codes out of 512, and a PixelCNN as their prior.

--config.vq.levels=2     VQ-VAE-2 (Razavi et al. 2019): 8x8 fine codes and 4x4 coarse ones
Cost: for an accelerator; not trained here. Expected: the paper has 4.67 bits/dim.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "vq_vae"
    config.data.update(name="cifar10", shape=(32, 32, 3), levels=256, train_split="train", test_split="test")
    config.vq = ConfigDict(
        dict(
            levels=1,  # grids of codes; 2: VQ-VAE-2
            halvings=2,  # of each axis, from the data to the finest codes
            num_codes=512,  # vectors in a codebook
            dim=64,  # entries of a vector
            commitment=0.25,
            decay=0.99,  # of the running means that make the codebook; 0: learned by its gradient
            least=0.05,  # a code with a smaller running count begins anew; 0: never
        )
    )
    config.net = ConfigDict(
        dict(
            features=256,
            blocks=2,
            likelihood="discretized_logistic",  # | bernoulli | gaussian | isotropic_gaussian
            prior="pixel_cnn",  # of the codes: pixel_cnn | transformer
            prior_features=128,
            prior_depth=5,
        )
    )
    config.evaluation.update(batch_size=100)
    config.training.update(
        steps=250_000,
        batch_size=128,
        learning_rate=2e-4,
        ema_decay=0.999,
        flip=True,
        eval_every=10_000,
        save_every=5_000,
    )
    return config
