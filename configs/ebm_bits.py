"""An energy model of twelve coupled bits by minimum probability flow (Sohl-Dickstein, Battaglino & DeWeese 2011).

The bound is log p itself, by a sum over all 4096 arrays. The best model has the data's entropy, 5.826 nats.
Cost: half a minute on 2 CPU cores. Expected: within a hundredth of the entropy.
"""

from ml_collections import ConfigDict

from configs import ebm_toy


def get_config() -> ConfigDict:
    config = ebm_toy.get_config()
    config.data.update(name="coupled_bits", shape=(12,), levels=2)
    config.ebm.objective = "minimum_probability_flow"
    config.ebm.start_std = 100.0  # no Gaussian factor to speak of
    config.net.features = (64, 64)
    config.sampling.steps = 50  # sweeps of Gibbs sampling
    config.evaluation.update(modes=(), batch_size=500, grid=64)
    config.training.update(steps=2000, batch_size=200)
    return config
