"""Generative stochastic network of MNIST's greys, with walkback (Bengio et al. 2014).

Cost: not measured; ten minutes of a CPU core or more. Expected: not trained to the end here.
--config.evaluation.parzen_samples=10000 adds the Parzen window of the 2015 paper's Table 2.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "gsn"
    config.data.update(name="mnist", shape=(28, 28, 1), levels=256, train_split="train", test_split="test")
    config.gsn = ConfigDict(
        dict(
            hidden=(500, 500),  # units of the hidden layers, from x up
            corruption=0.4,  # the part of x that coins replace
            noise=1.0,  # standard deviation before and after the tanh of the layers above the first
            walkbacks=5,  # steps of the chain from an example, in training
            sample_steps=200,  # steps of the chain to a sample
        )
    )
    config.evaluation.update(parzen_samples=0)
    config.training.update(
        steps=4000, learning_rate=1e-3, decay="cosine", grad_clip=0.0, ema_decay=0.999, log_every=1000
    )
    return config
