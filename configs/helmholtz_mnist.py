"""Helmholtz machine of binarised MNIST, by wake-sleep and by reweighted wake-sleep (Bornschein & Bengio 2015).

    --config.helmholtz.objective=wake_sleep        | reweighted

Cost: not measured; ten minutes of a CPU core or more. Expected: not trained to the end here.
--config.evaluation.parzen_samples=10000 adds the Parzen window of the 2015 paper's Table 2.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "helmholtz"
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=2, binarized=True, train_split="train", test_split="test"
    )
    config.helmholtz = ConfigDict(
        dict(
            hidden=(200, 200),  # bits of the hidden layers, from x up
            objective="reweighted",  # wake_sleep | reweighted
            num_samples=5,  # K of reweighted
            sleeps=0.5,  # of reweighted: the part of the sleep phase in the recognition network's loss
        )
    )
    config.evaluation.update(num_weights=1000, weighted_examples=500, annealed_weights=0, parzen_samples=0)
    config.training.update(
        steps=20_000, learning_rate=1e-3, decay="cosine", grad_clip=0.0, ema_decay=0.999, log_every=1000
    )
    return config
