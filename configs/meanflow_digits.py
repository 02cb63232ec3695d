"""MeanFlow (Geng et al. 2025) on scikit-learn's digits, 8x8: one step from noise to data, no teacher.

Network and budget are those of configs/digits.py, plus an embedding of the second time.

--mode=sample --config.sampling.steps=1 | 2 | 4 ...     evaluations of the network for a sample
--mode=sample --config.sampling.sampler=heun            the flow itself, by its velocity

Cost: minutes on 2 CPU cores. Expected: blurred digits in one step, and digits one can read in two and more.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    config = digits.get_config()
    del config.diffusion
    del config.net.num_classes
    config.system = "mean_flow"
    config.matching = ConfigDict(
        dict(
            time_mean=-0.4,  # of log-odds of the two times
            time_std=1.0,
            apart=0.25,  # how often the two times differ; otherwise r = t, which is flow matching
            power=1.0,  # of the adaptive weight; 0: the plain loss
        )
    )
    config.sampling.update(sampler="mean_flow", steps=1)
    return config
