"""An overcomplete bank of filters of photographs by score matching (Hyvarinen 2005, section 3.3): patches of 12x12.

The patches come from photographs in scikit-image's wheel. Draw the filters with
`python -m experiments.results.filters PICTURE WORKDIR`.
Cost: minutes on 2 CPU cores. Expected: edges at all places, in all directions and of several widths.
"""

from ml_collections import ConfigDict

from configs import ebm_gaussian


def get_config() -> ConfigDict:
    config = ebm_gaussian.get_config()
    del config.data.sigmas
    config.data.update(name="patches", shape=(60,), num_train=50_000, num_test=2_000)
    config.data.side = 12  # pixels of a patch's side
    config.ebm.objective = "sliced"  # unbiased for exact, which takes a derivative for each of 60 directions
    config.net.name = "filters"
    config.net.num = 120
    config.evaluation.batch_size = 2_000
    config.training.update(steps=4000, batch_size=1000, learning_rate=0.01)
    return config
