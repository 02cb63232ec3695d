"""Deep Boltzmann machine of binarised MNIST (Salakhutdinov & Hinton 2009): mean field and persistent chains.

Cost: not measured; ten minutes of a CPU core or more. Expected: not trained to the end here.
--config.evaluation.parzen_samples=10000 adds the Parzen window of the 2015 paper's Table 2.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "dbm"
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=2, binarized=True, train_split="train", test_split="test"
    )
    config.dbm = ConfigDict(
        dict(
            hidden=(500, 500),  # bits of the hidden layers, from x up
            sweeps=10,  # of mean field
            k=5,  # Gibbs steps of the chains after each step
            num_chains=100,
            sample_steps=1000,  # Gibbs steps from noise to a sample
        )
    )
    config.evaluation.update(
        annealing_chains=100,
        temperatures=10_000,  # of the annealing that estimates log Z
        density_weights=1,
        parzen_samples=0,
    )
    config.training.update(
        steps=10_000, learning_rate=1e-3, decay="cosine", grad_clip=0.0, ema_decay=0.999, log_every=1000
    )
    return config
