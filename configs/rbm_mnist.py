"""Restricted Boltzmann machine of binarised MNIST (Salakhutdinov & Murray 2008): 500 hidden bits, persistent chains.

    --config.rbm.objective=cd --config.rbm.k=25                     contrastive divergence, the paper's
    --config.rbm.hidden=20                                          log Z by enumeration beside the annealed one
    --config.rbm.visible=real --config.data.levels=256 --config.data.binarized=False    Gaussian visible units
    --config.evaluation.parzen_samples=10000                        the Parzen window of the 2015 paper's Table 2

Cost: six minutes of a CPU core to train, and a few to estimate log Z. Expected: log p(x) near -96 nats.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "rbm"
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=2, binarized=True, train_split="train", test_split="test"
    )
    config.rbm = ConfigDict(
        dict(
            visible="bits",  # bits | real
            hidden=500,
            objective="pcd",  # cd | pcd
            k=5,  # Gibbs steps, from the data or of the chains
            num_chains=100,  # of pcd
            sample_steps=1000,  # Gibbs steps from noise to a sample
        )
    )
    config.evaluation.update(
        annealing_chains=100,
        temperatures=10_000,
        density_weights=1,
        parzen_samples=0,
    )
    config.training.update(
        steps=12_000, learning_rate=1e-3, decay="cosine", grad_clip=0.0, ema_decay=0.999, log_every=1000
    )
    return config
