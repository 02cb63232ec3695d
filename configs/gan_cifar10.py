"""Generative adversarial network on CIFAR-10: hinge loss, R1 penalty, residual convolutions without batch statistics.

Cost: not trained to the end here; see configs/gan_digits.py for a run of minutes. Expected: no number of our own. The
first paper reports a Parzen window only.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "gan"
    config.data.update(name="cifar10", shape=(32, 32, 3), levels=256, train_split="train", test_split="test")
    config.gan = ConfigDict(
        dict(
            game="hinge",  # non_saturating | hinge | wasserstein
            latents=128,  # entries of z
            penalty=0.0,  # weight of (|∇D| - 1)² between data and samples; 10 for wasserstein
            r1=0.1,  # weight of ½|∇D|² at the data
        )
    )
    config.net = ConfigDict(dict(channels=(256, 256, 128, 64)))  # of the generator; the discriminator has them reversed
    config.training.update(
        steps=100_000,
        batch_size=64,
        warmup=0,
        learning_rate=2e-4,
        grad_clip=0.0,  # the two sides' gradients must not scale each other
        ema_decay=0.999,
        flip=True,
        eval_every=5_000,
        save_every=5_000,
    )
    # Without momentum, each side answers to the other of now (Gulrajani et al. 2017). D is the faster one.
    config.training.parts = ConfigDict(
        dict(
            generator=dict(learning_rate=1e-4, b1=0.0, b2=0.99), discriminator=dict(learning_rate=4e-4, b1=0.0, b2=0.99)
        )
    )
    return config
