"""A small classifier of scikit-learn's digits, 8x8, whose features and classes measure the samples of other systems:

    python -m experiments.main --config=configs/classifier_digits.py --workdir=CLASSIFIER
    python -m experiments.main --mode=eval --workdir=RUN --config.evaluation.quality=pixels,run:CLASSIFIER

Cost: seconds on two CPU cores. Expected: 2 to 4% of the held-out digits wrong.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.system = "classifier"
    config.data.update(name="digits", shape=(8, 8, 1), levels=17)
    config.net = ConfigDict(dict(num_classes=10, channels=(32, 64), features=32))
    config.sampling.sampler = ""  # nothing can be sampled
    del config.data.in_memory, config.evaluation.num_terms, config.evaluation.grid
    config.evaluation.update(batch_size=297, probe="")
    config.training.update(steps=1000, log_every=200)
    return config
