"""A linear auto-encoder on scikit-learn's digits, 8x8: 32 numbers an image, in the span of its principal components.

The other configs/ae_*_digits.py change the section `autoencoder`. The code size is the same, and so is the number
of steps, except for k-means. Cost: seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "autoencoder"
    config.data.update(name="digits", shape=(8, 8, 1), levels=17)
    config.autoencoder = ConfigDict(dict(kind="linear", code=32))
    config.sampling.sampler = ""  # nothing can be sampled, and there is no bound
    del config.data.in_memory, config.evaluation.num_terms, config.evaluation.grid
    # The probe is a linear classifier of the codes, compared with one of the pixels: "logistic", "svm", or "" for none.
    config.evaluation.update(batch_size=297, probe="logistic")
    config.training.update(
        steps=2000, learning_rate=1e-2, grad_clip=0.0, ema_decay=0.995, log_every=200, save_every=1000
    )
    return config
