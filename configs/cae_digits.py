"""A stack of contractive auto-encoders of scikit-learn's digits, and samples by its walk (Rifai et al. 2012).

Cost: 20 seconds of a CPU core. Expected: a Parzen window of 11 nats.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "autoencoder"
    config.data.update(name="digits", shape=(8, 8, 1), levels=17)
    config.autoencoder = ConfigDict(
        dict(
            kind="stacked_contractive",
            code=64,
            features=(128,),  # units of the codes below
            penalty=0.1,
            walk_noise=1.0,  # standard deviation of the noise in the code, before J Jᵀ
            walk_steps=100,  # from a uniform code to a sample
        )
    )
    config.evaluation.update(batch_size=297, probe="logistic", parzen_samples=1500)
    config.training.update(
        steps=4000, learning_rate=3e-3, decay="cosine", grad_clip=0.0, ema_decay=0.995, log_every=1000
    )
    return config
