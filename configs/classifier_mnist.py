"""A small classifier of MNIST, whose features and classes measure the samples of other systems; see classifier_digits.

Cost: about a minute on two CPU cores. Expected: about 1% of the test digits wrong.
"""

from ml_collections import ConfigDict

from configs import classifier_digits


def get_config() -> ConfigDict:
    config = classifier_digits.get_config()
    config.data.update(
        name="mnist", shape=(28, 28, 1), levels=256, train_split="train", test_split="test", in_memory=True
    )
    config.evaluation.update(batch_size=500)
    config.training.update(steps=3000)
    return config
