"""Improved DDPM (Nichol & Dhariwal 2021: hybrid loss, learned variance) on scikit-learn's 1797 handwritten digits, 8x8.

No download, minutes on two CPU cores.

Cost: under 3 minutes on 2 CPU cores, evaluation and pictures included.
Expected: readable digits; see the README's table for bits/dim. Pixels have 17 levels, so a pixel has at most
log2(17) = 4.09 bits. Do not compare these bits/dim with those of 8-bit sets.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    config.data.update(name="digits", shape=(8, 8, 1), levels=17, train_split="", test_split="")
    # 17 levels are 1/8 apart. With much finer noise the network would only learn to round. So the chain starts at
    # sigma = 0.045 and leaves the levels to the decoder.
    config.diffusion.update(num_steps=250, betas=(2e-3, 0.08), variance="learned", loss="hybrid")
    config.diffusion.time_sampling = "low_discrepancy"
    config.net.update(channels=32, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    config.sampling.update(steps=250)
    config.evaluation.update(batch_size=99, conditioning=False)  # its pictures take half a minute
    config.training.update(
        steps=800,
        batch_size=64,
        learning_rate=2e-3,
        warmup=100,
        ema_decay=0.995,
        flip=False,
        log_every=25,
        eval_every=400,
        save_every=400,
        keep_every=0,
    )
    return config
