"""Flow matching between two sets: eight Gaussians on a circle become two moons (Tong et al. 2024, figure 1).

--config.matching.coupling=independent     pairs at random, paths that bend
--config.matching.coupling=sinkhorn --config.matching.epsilon=0.5     entropic pairs

Cost: minutes on 2 CPU cores. Expected: paths nearly straight, and few steps nearly as good as many.
"""

from ml_collections import ConfigDict

from configs import fm_toy


def get_config() -> ConfigDict:
    config = fm_toy.get_config()
    sizes = dict(levels=0, num_train=100_000, num_test=2_000)
    config.data = ConfigDict(
        dict(name="two_moons", shape=(2,), noise=0.1, source=config.data.copy_and_resolve_references(), **sizes)
    )
    config.evaluation.modes = ()
    config.matching.update(source="data", coupling="optimal")
    config.sampling.sampler = "heun"
    return config
