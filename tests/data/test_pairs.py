"""Sets in pairs, from a configuration."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from diffjax import data
from diffjax.errors import InputError

ROLL = dict(name="swiss_roll", shape=(2,), noise=0.1, num_train=7, num_test=3)
GAUSSIANS = dict(
    name="mixture", shape=(2,), weights=(0.5, 0.5), means=((0.0, 1.0), (2.0, 3.0)), std=0.1, num_train=4, num_test=3
)


def test_the_source_is_the_other_set_in_its_own_order():
    both = data.load(ConfigDict(GAUSSIANS | dict(num_train=9, source=ROLL)), "train")
    alone, roll = (data.load(ConfigDict(one), "train") for one in (GAUSSIANS | dict(num_train=9), ROLL))
    indices = np.array([8, 0, 3, 6])
    batch = both.gather(indices)
    np.testing.assert_array_equal(batch["image"], alone.gather(indices)["image"])
    np.testing.assert_array_equal(batch["source"], roll.gather(np.array([1, 0, 3, 6]))["image"])
    assert len(both) == 9 and both.shape == (2,)
    first = next(iter(data.batches(both, 4, seed=0)))
    assert first["source"].shape == first["image"].shape == (4, 2)
    test = next(data.epoch(data.load(ConfigDict(GAUSSIANS | dict(source=ROLL)), "test"), 3))
    other = data.load(ConfigDict(ROLL), "test").gather(np.arange(3))["image"]
    np.testing.assert_array_equal(test["source"], other)


def test_sets_of_two_kinds_are_no_pair():
    bits = dict(name="heartbeat", shape=(20,), num_train=4, num_test=4)
    with pytest.raises(InputError, match=r"data.source='heartbeat' has shape \(20,\), but 'mixture' has \(2,\)"):
        data.load(ConfigDict(GAUSSIANS | dict(source=bits)), "train")
    counts = dict(name="given", shape=(20,), example=[0.5] * 20, num_train=4, num_test=4)
    with pytest.raises(InputError, match=r"data.source='given' has levels 0, but 'heartbeat' has 2"):
        data.load(ConfigDict(bits | dict(source=counts)), "train")
