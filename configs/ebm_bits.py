"""An energy model of ten bits by minimum probability flow (Sohl-Dickstein, Battaglino & DeWeese 2011).

The bits are heartbeats: a 1 at every fifth place, so the true log p is log(1/5) = -1.609 nats.
Cost: half a minute on 2 CPU cores. Expected: near 1.61 nats, by a sum over all 1024 arrays.
"""

from ml_collections import ConfigDict

from configs import ebm_toy


def get_config() -> ConfigDict:
    config = ebm_toy.get_config()
    config.data.update(name="heartbeat", shape=(20,), levels=2)
    config.ebm.objective = "minimum_probability_flow"
    config.net.features = (64, 64)
    config.sampling.steps = 50  # sweeps of Gibbs sampling
    config.evaluation.update(modes=(), batch_size=500, grid=64)
    config.training.update(steps=2000, batch_size=200)
    return config
